"""Focal loss (Lin et al. 2017): rows that are right already count for less.

L = 1/N sum_i (1 - p_i)^gamma * l_i, where l_i is the task's loss of the row and p_i = exp(-l_i) the probability of its
class.
The paper's class factors alpha are those of `cross_entropy.class_weights`; they are not applied here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.lazy import torch
from bothways.output_side.objectives import Objective, plain
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping


@OBJECTIVES.register("focal")
class Focal(Objective):
    """`gamma`: how fast a row's weight falls as its probability grows."""

    term = "focal loss"
    source = "Lin et al. 2017"
    neutral: ClassVar[Mapping[str, Any]] = {"gamma": 0.0}

    gamma: Annotated[float, Field(ge=0.0, le=10.0), Range(0.5, 5.0)] = 2.0

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.gamma == 0:
            return plain(forward, batch, task)
        hard = task.row_losses(forward(batch), batch)
        # The power has no derivative at 0 when gamma is below 1; there, its factor l_i is 0 too.
        missing = (-torch.expm1(-hard)).clamp_min(1e-12)
        loss = (missing**self.gamma * hard).mean()
        return Loss(total=loss, parts={"supervised": hard.detach().mean(), "focal": loss.detach()})
