"""Cross-entropy: the supervised loss of the task, mean over the rows.

L = 1/N sum_i w(y_i) l_i, where l_i = -log p(y_i | x_i) for classification and w is 1 unless class weights are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.errors import UserError
from bothways.output_side.objectives import Objective, plain
from bothways.registry import OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@OBJECTIVES.register("cross_entropy")
class CrossEntropy(Objective):
    """`class_weights`: a factor for the rows of each class, in the order of the label map; empty for 1 each; `balanced`
    for N / (C n_c) where n_c of N training rows are of one of C classes: all classes weigh the same, and a row 1 in the
    mean.

    The sum is divided by the number of rows, not by the sum of their weights (as torch does): a row's gradient then
    does not depend on which rows share its batch.
    """

    term = "supervised learning"
    neutral: ClassVar[Mapping[str, Any]] = {"class_weights": ()}

    class_weights: tuple[Annotated[float, Field(ge=0.0)], ...] | Literal["balanced"] = ()

    def for_classes(self, counts: Sequence[int]) -> Self:
        if self.class_weights != "balanced":
            return self
        rows, classes = sum(counts), sum(count > 0 for count in counts)
        weights = tuple(rows / (classes * count) if count else 1.0 for count in counts)
        return self.model_copy(update={"class_weights": weights})

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if not self.class_weights:
            return plain(forward, batch, task)
        assert not isinstance(self.class_weights, str), "for_classes has not been asked"
        logits = forward(batch)
        if len(self.class_weights) != logits.shape[1]:
            raise UserError(
                f"cross_entropy.class_weights has {len(self.class_weights)} entries, the data {logits.shape[1]} classes"
            )
        weights = logits.new_tensor(self.class_weights)[batch.labels]
        loss = (weights * task.row_losses(logits, batch)).mean()
        return Loss(total=loss, parts={"weighted": loss.detach()})
