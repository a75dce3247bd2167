"""Multi-label classification: any number of the classes, also none, for a text or a pair of texts.

L = 1/K sum_k -(y_k log s_k + (1 - y_k) log(1 - s_k)), s_k the sigmoid of logit k: K decisions for each row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from bothways.contracts import Batch
from bothways.lazy import functional, torch
from bothways.registry import TASKS
from bothways.task_contract import Architecture, Logits, Prediction, Unusable
from bothways.tasks import CLASSIFIER, Directions, Task, f1, some

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@TASKS.register("multi_label")
class MultiLabel(Task):
    """A label cell is a list of names, or a text with `separator` between them. `threshold`: the probability from
    which on a class is predicted."""

    term = "multi-label classification"
    logits: ClassVar[Logits] = "other"
    fewest_classes: ClassVar[int] = 1
    score: ClassVar[str] = "exact match"
    ranking: ClassVar[tuple[str, ...]] = ("micro_f1", "log_loss")

    separator: Annotated[str, Field(min_length=1)] = ","
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5

    @property
    def directions(self) -> Directions:
        return {"exact_match": "max", "micro_f1": "max", "macro_f1": "max", "log_loss": "min"}

    def architecture(self, classes: tuple[str, ...]) -> Architecture:
        return Architecture(
            auto=CLASSIFIER,
            settings=(("num_labels", len(classes)), ("problem_type", "multi_label_classification")),
        )

    def read(self, texts: list[Any], cell: Any) -> tuple[list[Any], str]:
        """The label is a JSON list of names, sorted, each once; an empty cell names none."""
        if cell is None or cell != cell:
            cell = []
        if isinstance(cell, str):
            cell = cell.split(self.separator)
        if not isinstance(cell, list) or not all(isinstance(name, str | int) for name in cell):
            raise Unusable("a label that is no list of names")
        names = sorted({str(name).strip() for name in cell} - {""})
        return texts, json.dumps(names, ensure_ascii=False)

    def classes(self, label: str) -> Sequence[str]:
        return list(json.loads(label))

    def column(self, labels: Sequence[str], classes: tuple[str, ...]) -> pa.Array:
        """list<float32>: 1 for each class of the row, 0 for the others."""
        import pyarrow as pa

        number = {name: i for i, name in enumerate(classes)}
        hot = np.zeros((len(labels), len(classes)), np.float32)
        for row, label in enumerate(labels):
            hot[row, [number[name] for name in json.loads(label)]] = 1
        return pa.array(list(hot), pa.list_(pa.float32()))

    def blank(self, texts: Sequence[str]) -> pa.Array:
        import pyarrow as pa

        return pa.array([[0.0]] * len(texts), pa.list_(pa.float32()))

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of every row, mean over the classes, (N,)."""
        losses = functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
        return losses.mean(dim=1)

    def _predicted(self, logits: Tensor) -> Tensor:
        """bool (N, K)."""
        return torch.sigmoid(logits.double()) >= self.threshold

    def row_scores(self, logits: Tensor, batch: Batch) -> Tensor:
        """1 where exactly the right classes are predicted."""
        return (self._predicted(logits) == batch.labels.bool()).all(dim=1).float()

    def width(self, classes: int) -> int:
        return 3 * classes + 3

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """True positives, predictions and labels of each class; exact rows, losses, rows."""
        found, real = self._predicted(logits), batch.labels.bool()
        per_class = torch.cat([(found & real).sum(dim=0), found.sum(dim=0), real.sum(dim=0)]).double()
        rows = [
            self.row_scores(logits, batch).double().sum(),
            self.row_losses(logits.double(), batch).sum(),
            per_class.new_tensor(float(len(batch))),
        ]
        return torch.cat([per_class, torch.stack(rows)]).cpu()

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """`exact_match` (all classes of a row right), `micro_f1`, `macro_f1`, `log_loss`."""
        *_, exact, loss, rows = sums.tolist()
        hits, found, real = sums[:-3].reshape(3, -1)
        seen = found + real > 0
        macro = 2 * hits[seen] / (found + real)[seen]
        return {
            "exact_match": exact / some(rows),
            "micro_f1": f1(float(hits.sum()), float(found.sum()), float(real.sum())),
            "macro_f1": float(macro.mean()) if len(macro) else 0.0,
            "log_loss": loss / rows,
        }

    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]:
        """The classes above the threshold, and the probability of each class by itself."""
        found = []
        for shares in torch.sigmoid(logits.double()).tolist():
            names = [name for name, share in zip(classes, shares, strict=True) if share >= self.threshold]
            probabilities = dict(zip(classes, shares, strict=True))
            found.append(Prediction(label=self.separator.join(names), probabilities=probabilities, value=names))
        return found
