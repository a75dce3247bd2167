"""Regression: a number for a text or a pair of texts. L = ((y - mean) / scale - z)^2, z the model's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from bothways.contracts import Batch
from bothways.lazy import functional, torch
from bothways.registry import TASKS
from bothways.task_contract import Architecture, Logits, Prediction, Unusable
from bothways.tasks import CLASSIFIER, Directions, Task, plain_label, some

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@TASKS.register("regression")
class Regression(Task):
    """`mean`, `scale`: what the model learns is (label - `mean`) / `scale`; set them so that this is about -1 to 1."""

    term = "regression"
    logits: ClassVar[Logits] = "other"
    score: ClassVar[str] = "1 - |error| / scale"
    ranking: ClassVar[tuple[str, ...]] = ("rmse",)

    mean: float = 0.0
    scale: Annotated[float, Field(gt=0.0)] = 1.0

    @property
    def directions(self) -> Directions:
        return {"rmse": "min", "mae": "min", "pearson": "max", "r2": "max"}

    def architecture(self, classes: tuple[str, ...]) -> Architecture:
        return Architecture(auto=CLASSIFIER, settings=(("num_labels", 1), ("problem_type", "regression")))

    def read(self, texts: list[Any], cell: Any) -> tuple[list[Any], str]:
        label = plain_label(cell)
        if not label:
            return texts, ""
        try:
            number = float(label)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise Unusable("a label that is no number")
        return texts, repr(number)

    def column(self, labels: Sequence[str], classes: tuple[str, ...]) -> pa.Array:
        """float64: the number."""
        import pyarrow as pa

        return pa.array([float(label) for label in labels], pa.float64())

    def blank(self, texts: Sequence[str]) -> pa.Array:
        import pyarrow as pa

        return pa.array(np.zeros(len(texts)))

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """The squared error of every row in units of `scale`, (N,)."""
        target = (batch.labels - self.mean) / self.scale
        return functional.mse_loss(logits[:, 0], target.to(logits.dtype), reduction="none")

    def _predicted(self, logits: Tensor) -> Tensor:
        """float64 (N,)."""
        return logits[:, 0].double() * self.scale + self.mean

    def row_scores(self, logits: Tensor, batch: Batch) -> Tensor:
        """1 minus the absolute error in units of `scale`, at least 0."""
        return (1 - (self._predicted(logits) - batch.labels).abs() / self.scale).clamp_min(0).float()

    def width(self, classes: int) -> int:
        return 8

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """Over rows, p and y less `mean`: 1, p, y, p^2, y^2, p y, |p - y|, (p - y)^2."""
        p, y = self._predicted(logits) - self.mean, batch.labels.double() - self.mean
        terms = [torch.ones_like(p), p, y, p * p, y * y, p * y, (p - y).abs(), (p - y) ** 2]
        return torch.stack([term.sum() for term in terms]).cpu()

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """`rmse`, `mae`, and `pearson` and `r2`, 0 where they are not defined (all labels alike, say)."""
        rows, p, y, pp, yy, py, absolute, squared = sums.tolist()
        some(rows)
        variance_p, variance_y = pp - p * p / rows, yy - y * y / rows
        defined = min(variance_p, variance_y) > 1e-12 * max(pp, yy)
        return {
            "rmse": math.sqrt(squared / rows),
            "mae": absolute / rows,
            "pearson": (py - p * y / rows) / math.sqrt(variance_p * variance_y) if defined else 0.0,
            "r2": 1 - squared / variance_y if variance_y > 1e-12 * yy else 0.0,
        }

    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]:
        return [Prediction(label=f"{value:.6g}", value=value) for value in self._predicted(logits).tolist()]
