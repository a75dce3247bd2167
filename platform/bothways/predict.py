"""What a trained model says of new texts, read the way its training read its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from bothways import models
from bothways.batches import batching
from bothways.errors import UserError
from bothways.task_contract import Prediction as Prediction
from bothways.training import generation


class Predictor:
    """A saved or exported model in memory. Raises `UserError` when `model_dir` holds none.

    `labels`: in the order of the label map. `paired`: whether it reads pairs.
    """

    def __init__(self, model_dir: Path | str, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._bundle, about = models.load_saved(Path(model_dir), device)
        self.labels = about.labels
        self.paired = about.paired
        experiment = about.experiment
        self._task = experiment.task
        self._encode = batching.Encode(
            tokenizer_path=self._bundle.path,
            max_length=experiment.model.max_length,
            paired=self.paired,
            vocabulary=self._bundle.vocabulary,
            side=batching.evaluation_side(experiment.input),
            language=experiment.data.language,
            seed=experiment.seed,
            task=self._task,
            start=self._bundle.start_id,
        )

    @property
    def bundle(self) -> models.Bundle:
        """The model."""
        return self._bundle

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """A prediction for each text (and its pair), in order."""
        if (pairs is not None) != self.paired:
            raise UserError(
                "this model reads pairs of texts" if self.paired else "this model reads single texts, no pairs"
            )
        if pairs is not None and len(pairs) != len(texts):
            raise UserError(f"{len(texts)} texts, but {len(pairs)} pairs")
        if not texts:
            return []
        count = len(texts)
        rows = pa.table(
            {
                "id": pa.array(range(count), pa.int64()),
                "text": pa.array(texts, pa.string()),
                "pair": pa.array(pairs, pa.string()) if pairs else pa.nulls(count, pa.string()),
                "label": self._task.blank(pairs if self._task.places == "pair" and pairs is not None else texts),
            }
        )
        encoded = self._encode(batching.evaluation_views(rows))
        order = np.argsort(batching.lengths(encoded), kind="stable")
        tables = batching.regroup([encoded.take(pa.array(order))], self._task.evaluation_rows)
        batches = [batching.collate(table, self._bundle.pad_id).to(self._device) for table in tables]
        found = list(generation.predictions(self._task, self._bundle, batches, self.labels))
        return [found[place] for place in np.argsort(order)]
