"""Text classification: one label for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bothways.contracts import Batch
from bothways.lazy import functional, torch
from bothways.metrics import DIRECTIONS, classification_metrics, classification_sums, classification_width
from bothways.registry import TASKS
from bothways.task_contract import Architecture, Prediction
from bothways.tasks import CLASSIFIER, Directions, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@TASKS.register("classification")
class Classification(Task):
    """Single texts or pairs: whichever the data have."""

    term = "text classification"
    fewest_classes: ClassVar[int] = 2
    ranking: ClassVar[tuple[str, ...]] = ("accuracy", "log_loss")

    @property
    def directions(self) -> Directions:
        return DIRECTIONS

    def architecture(self, classes: tuple[str, ...]) -> Architecture:
        return Architecture(auto=CLASSIFIER, settings=(("num_labels", len(classes)),))

    def classes(self, label: str) -> Sequence[str]:
        return (label,)

    def column(self, labels: Sequence[str], classes: tuple[str, ...]) -> pa.Array:
        """int64: the class."""
        import pyarrow as pa

        number = {label: i for i, label in enumerate(classes)}
        return pa.array([number[label] for label in labels], pa.int64())

    def blank(self, texts: Sequence[str]) -> pa.Array:
        import pyarrow as pa

        return pa.array(np.zeros(len(texts), np.int64))

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of every row, (N,)."""
        return functional.cross_entropy(logits, batch.labels, reduction="none")

    def row_scores(self, logits: Tensor, batch: Batch) -> Tensor:
        """1 where the likeliest class is the right one."""
        return (logits.argmax(dim=1) == batch.labels).float()

    def width(self, classes: int) -> int:
        return classification_width(classes)

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """`metrics.classification_sums` of the batch."""
        return classification_sums(logits, batch.labels)

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Those of `metrics.classification_metrics`."""
        return classification_metrics(sums)

    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]:
        """The likeliest class, and the probability of each."""
        rows = torch.softmax(logits.double(), dim=1).tolist()
        return [_prediction(dict(zip(classes, row, strict=True))) for row in rows]


def _prediction(probabilities: dict[str, float]) -> Prediction:
    best = max(probabilities, key=probabilities.__getitem__)
    return Prediction(label=best, probabilities=probabilities, value=best)
