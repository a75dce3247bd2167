"""Classification scores as sums that add up over batches and workers, divided once at the end.

Averaging the workers' averages would weigh rows unequally as soon as their shares differ; sums cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothways.lazy import functional, torch

if TYPE_CHECKING:
    from torch import Tensor


def classification_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Float64 vector (C x C + 2,) on the CPU: the confusion matrix (true class by row), the log-loss sum, the rows.

    `logits` (N, C), `labels` int64 (N,).
    """
    classes = logits.shape[1]
    cells = (labels * classes + logits.argmax(dim=1)).cpu()
    confusion = torch.bincount(cells, minlength=classes * classes).double()
    loss = functional.cross_entropy(logits.double(), labels, reduction="sum").cpu()
    return torch.cat([confusion, loss[None], torch.tensor([float(len(labels))], dtype=torch.float64)])


def classification_metrics(sums: Tensor) -> dict[str, float]:
    """`accuracy`, `macro_f1`, `log_loss` (nats) from added-up `classification_sums`.

    A class that is neither in the labels nor in the predictions does not enter `macro_f1`, as in scikit-learn.
    Raises `ValueError` when there were no rows.
    """
    *_, loss, rows = sums.tolist()
    if rows == 0:
        raise ValueError("there are no rows to score")
    classes = round((len(sums) - 2) ** 0.5)
    confusion = sums[:-2].reshape(classes, classes)
    hits, seen = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    f1 = 2 * hits[seen > 0] / seen[seen > 0]
    return {
        "accuracy": float(hits.sum()) / rows,
        "macro_f1": float(f1.mean()),
        "log_loss": loss / rows,
    }
