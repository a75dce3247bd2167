"""Cross-entropy: the supervised loss of the task, mean over the rows.

L = 1/N sum_i w(y_i) l_i, where l_i = -log p(y_i | x_i) for classification and w is 1 unless class weights are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.errors import UserError
from bothways.output_side.objectives import Objective, plain
from bothways.registry import OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping


@OBJECTIVES.register("cross_entropy")
class CrossEntropy(Objective):
    """`class_weights`: a factor for the rows of each class, in the order of the label map; empty for 1 each.

    The sum is divided by the number of rows, not by the sum of their weights (as torch does): a row's gradient then
    does not depend on which rows share its batch.
    """

    term = "supervised learning"
    neutral: ClassVar[Mapping[str, Any]] = {"class_weights": ()}

    class_weights: tuple[Annotated[float, Field(ge=0.0)], ...] = ()

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if not self.class_weights:
            return plain(forward, batch, task)
        logits = forward(batch)
        if len(self.class_weights) != logits.shape[1]:
            raise UserError(
                f"cross_entropy.class_weights has {len(self.class_weights)} entries, the data {logits.shape[1]} classes"
            )
        weights = logits.new_tensor(self.class_weights)[batch.labels]
        loss = (weights * task.row_losses(logits, batch)).mean()
        return Loss(total=loss, parts={"weighted": loss.detach()})
