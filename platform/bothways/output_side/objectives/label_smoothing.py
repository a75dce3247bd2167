"""Label smoothing: cross-entropy against a target that keeps a share `epsilon` for all classes alike.

L = 1/N sum_i (1 - e_i) l_i + e_i * (-1/C sum_c log p_ic), with e_i = epsilon (Szegedy et al. 2016, section 7).
softEDA (Choi et al. 2024) smooths augmented copies only, since a changed text may have lost some of its label:
e_i = epsilon where row i is a copy and 0 for originals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.lazy import functional
from bothways.output_side.objectives import Objective, plain
from bothways.registry import OBJECTIVES, Choices, Range

if TYPE_CHECKING:
    from collections.abc import Mapping


@OBJECTIVES.register("label_smoothing")
class LabelSmoothing(Objective):
    """`epsilon`: the share of the target spread over the classes. `augmented_only`: originals keep hard labels."""

    term = "label smoothing; soft labels for augmented rows"
    source = "Szegedy et al. 2016; softEDA, Choi et al. 2024"
    neutral: ClassVar[Mapping[str, Any]] = {"epsilon": 0.0}

    epsilon: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.02, 0.3)] = 0.1
    augmented_only: Annotated[bool, Choices(False, True)] = False

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.epsilon == 0:
            return plain(forward, batch, task)
        logits = forward(batch)
        hard = task.row_losses(logits, batch)
        uniform = -functional.log_softmax(logits, dim=-1).mean(dim=-1)
        share = self.epsilon * batch.is_copy.to(logits.dtype) if self.augmented_only else self.epsilon
        return Loss(
            total=((1 - share) * hard + share * uniform).mean(),
            parts={"supervised": hard.detach().mean(), "uniform": uniform.detach().mean()},
        )
