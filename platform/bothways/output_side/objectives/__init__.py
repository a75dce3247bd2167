"""What the model has to learn: one file a method. The objectives all build on plain cross-entropy, below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from bothways.contracts import Batch, Beside, Forward, Loss, TaskLike, Teacher
from bothways.registry import Component
from bothways.task_contract import Logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

ANY: tuple[Logits, ...] = ("classes", "tokens", "other")
PLAIN = (1, 1)
"""The cost of plain cross-entropy: one forward and one backward pass over the rows."""


class Objective(Component):
    """What every member is (`contracts.ObjectiveLike`), for those that need the batch's rows and the model only.

    `logits`: of which tasks it is defined for.
    """

    @property
    def logits(self) -> tuple[Logits, ...]:
        return ("classes",)

    @property
    def passes(self) -> tuple[int, int]:
        return PLAIN

    @property
    def answers(self) -> bool:
        return False

    @property
    def recalls(self) -> bool:
        return False

    @property
    def beside(self) -> Beside | None:
        return None

    @property
    def taught_by(self) -> tuple[Teacher, ...]:
        return ()

    def modules(self, width: int, classes: int) -> nn.Module | None:
        return None

    def for_classes(self, counts: Sequence[int]) -> Self:
        return self

    def for_tasks(self, classes: Sequence[int]) -> Self:
        return self


def supervised(task: TaskLike, logits: Tensor, batch: Batch) -> Loss:
    """The task's supervised loss, mean over the batch's rows, of logits (N, C)."""
    loss = task.row_losses(logits, batch).mean()
    return Loss(total=loss, parts={"supervised": loss.detach()})


def plain(forward: Forward, batch: Batch, task: TaskLike) -> Loss:
    """Plain cross-entropy. Every objective at its neutral setting IS this call, and so equals it to the last bit."""
    return supervised(task, forward(batch), batch)
