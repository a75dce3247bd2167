"""What the model has to learn: one file a method. The objectives all build on plain cross-entropy, below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothways.contracts import Batch, Forward, Loss, TaskLike

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = (1, 1)
"""The cost of plain cross-entropy: one forward and one backward pass over the rows."""


def supervised(task: TaskLike, logits: Tensor, batch: Batch) -> Loss:
    """The task's supervised loss, mean over the batch's rows, of logits (N, C)."""
    loss = task.row_losses(logits, batch).mean()
    return Loss(total=loss, parts={"supervised": loss.detach()})


def plain(forward: Forward, batch: Batch, task: TaskLike) -> Loss:
    """Plain cross-entropy. Every objective at its neutral setting IS this call, and so equals it to the last bit."""
    return supervised(task, forward(batch), batch)
