"""Tasks in which tokens have labels: every token is classified, and a row is the mean over its labelled tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bothways.contracts import NO_LABEL, Batch
from bothways.lazy import functional, torch
from bothways.task_contract import Logits
from bothways.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor


class TokenTask(Task):
    """Logits (N, T, C), labels (N, T)."""

    logits: ClassVar[Logits] = "tokens"

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of every row, mean over its labelled tokens, (N,)."""
        return batch.per_row(token_losses(logits, batch.labels))

    def row_scores(self, logits: Tensor, batch: Batch) -> Tensor:
        """The share of every row's labelled tokens whose likeliest class is the right one."""
        return batch.per_row((logits.argmax(dim=-1) == batch.labels).float())


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every token, (N, T); 0 where it has no label."""
    flat = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none")
    return flat.view(labels.shape)


def token_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Over labelled tokens, float64 (3,) on the CPU: their losses, how many are right, how many there are."""
    real = labels != NO_LABEL
    right = (logits.argmax(dim=-1) == labels) & real
    return torch.stack([token_losses(logits, labels).double().sum(), right.double().sum(), real.double().sum()]).cpu()
