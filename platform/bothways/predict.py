"""What a trained model says of new texts, read the way its training read its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from bothways import models, training
from bothways.batches import batching, planning
from bothways.contracts import Batch
from bothways.errors import UserError
from bothways.seeding import F64
from bothways.task_contract import Prediction as Prediction
from bothways.training import generation


class Predictor:
    """A saved or exported model in memory. Raises `UserError` when `model_dir` holds none.

    `bundle`: the model. `labels`: in the order of the label map. `paired`: whether it reads pairs.
    """

    def __init__(self, model_dir: Path | str, device: torch.device | str = "cpu") -> None:
        self._device = device
        self.bundle, about = models.load_saved(Path(model_dir), device)
        self.labels = about.labels
        self.paired = about.paired
        self.experiment = about.experiment
        self._task = about.experiment.task
        side = batching.evaluation_side(about.experiment.input)
        self._encode = batching.Encode.of(about.experiment, self.bundle, paired=about.paired, side=side)

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """A prediction for each text (and its pair), in order."""
        if (pairs is not None) != self.paired:
            raise UserError(
                "this model reads pairs of texts: give each text its pair (--pair)"
                if self.paired
                else "this model reads single texts, no pairs"
            )
        if pairs is not None and len(pairs) != len(texts):
            raise UserError(f"{len(texts)} texts, but {len(pairs)} pairs")
        if not texts:
            return []
        batches, order = self._batches(self._rows(texts, pairs))
        found = list(generation.predictions(self._task, self.bundle, batches, self.labels))
        return [found[place] for place in np.argsort(order)]

    def refuse_unless_classes(self, what: str) -> None:
        """Raises `UserError` for a model that has no probability of each class for a row."""
        if self._task.logits != "classes":
            raise UserError(f"{what} reads the probabilities of classes, and {self._task.name} has none")

    def score(self, rows: pa.Table) -> dict[str, float]:
        """The task's metrics over rows of a `data.Dataset`; class numbers are positions in `labels`."""
        task = generation.scored(self._task, self.bundle, "test")
        forward = training.ModelForward(self.bundle.module, self.bundle.module, "fp32")
        return task.metrics(training.sums(forward, task, self._batches(rows)[0]))

    def looked_at(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> tuple[F64, F64]:
        """The probability of every label for each text, (N, C), and what the last layer reads of it, (N, H)."""
        batches, order = self._batches(self._rows(texts, pairs))
        module = self.bundle.module.eval()
        forward = training.ModelForward(module, module, "fp32")
        probabilities, features = [], []
        for batch in batches:
            with torch.no_grad():
                seen = forward.outputs(batch)
            probabilities.append(torch.softmax(seen.logits.double(), dim=1).cpu())
            features.append(seen.features.double().cpu())
        back = np.argsort(order)
        return torch.cat(probabilities).numpy()[back], torch.cat(features).numpy()[back]

    def _rows(self, texts: Sequence[str], pairs: Sequence[str] | None) -> pa.Table:
        count = len(texts)
        return pa.table(
            {
                "id": pa.array(range(count), pa.int64()),
                "text": pa.array(texts, pa.string()),
                "pair": pa.array(pairs, pa.string()) if pairs else pa.nulls(count, pa.string()),
                "label": self._task.blank(pairs if self._task.places == "pair" and pairs is not None else texts),
            }
        )

    def _batches(self, rows: pa.Table) -> tuple[list[Batch], planning.I64]:
        """The rows in batches of like length, and where each of them stands in `rows`."""
        encoded = self._encode(batching.evaluation_views(rows))
        tables, order = batching.of_like_length(encoded, self._task)
        return [batching.collate(table, self.bundle.pad_id).to(self._device) for table in tables], order
