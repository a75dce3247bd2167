"""Text classification: one label for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from bothways.contracts import Batch
from bothways.lazy import functional
from bothways.metrics import classification_metrics, classification_sums
from bothways.registry import TASKS, Component

if TYPE_CHECKING:
    from torch import Tensor


@TASKS.register("classification")
class Classification(Component):
    """Single texts or pairs: whichever the data have."""

    term = "text classification"
    directions: ClassVar[Mapping[str, Literal["max", "min"]]] = {
        "accuracy": "max",
        "macro_f1": "max",
        "log_loss": "min",
    }
    ranking: ClassVar[tuple[str, ...]] = ("accuracy", "log_loss")

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of every row, (N,)."""
        return functional.cross_entropy(logits, batch.labels, reduction="none")

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """`metrics.classification_sums` of the batch."""
        return classification_sums(logits, batch.labels)

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """`accuracy`, `macro_f1`, `log_loss`."""
        return classification_metrics(sums)
