"""What models say of a policy's copies: does one that was trained without augmentation still give their labels, and how
natural does a language model find them?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional

from bothways import assets, data
from bothways.config import Experiment
from bothways.data import Dataset
from bothways.policy.effects import fidelity, texts
from bothways.policy.screening import HALVES
from bothways.predict import Predictor
from bothways.seeding import F64
from bothways.training.cross_validation import experiments

BATCH = 16
"""Texts that a language model reads at once."""
LONGEST = 256
"""Its tokens of a text, at most."""


def probabilities(predictor: Predictor, rows: pa.Table) -> F64:
    """Of each row (columns text, pair), in the order of the label numbers, (N, C)."""
    pairs = rows["pair"].to_pylist() if predictor.paired else None
    found = predictor(rows["text"].to_pylist(), pairs)
    return np.array([[one.probabilities[label] for label in predictor.labels] for one in found])


def unlearnt(dataset: Dataset, experiment: Experiment) -> list[npt.NDArray[np.int64]]:
    """The ids of the rows that each of rung 0's control models has not learnt."""
    folds = [half.data.fold for half in experiments(experiment, HALVES)]
    seed = experiment.data.split_seed
    return [data.folded(dataset, fold, seed).selection["id"].to_numpy() for fold in folds if fold]


class Fidelity:
    """Share of copies that get the label their originals get, from a model trained without augmentation that has not
    learnt the row. `controls`: directories of such models, each with the ids of the rows that it has not learnt.

    What is said of originals is kept: the trials of a search have the same ones.
    """

    def __init__(self, controls: Sequence[tuple[str, npt.NDArray[np.int64]]], device: torch.device | str) -> None:
        self._controls = controls
        self._device = device
        self._known: dict[tuple[int, tuple[str, ...]], F64] = {}

    @cached_property
    def _predictors(self) -> list[Predictor]:
        return [Predictor(Path(directory), self._device) for directory, _ in self._controls]

    def __call__(self, before: pa.Table, after: pa.Table) -> dict[str, float]:
        """`fidelity`."""
        shares, counts = [], []
        for number, (_, ids) in enumerate(self._controls):
            mine = pa.array(np.flatnonzero(np.isin(before["id"].to_numpy(), ids)))
            if len(mine):
                said = self._of_originals(number, before.take(mine))
                shares.append(fidelity(said, probabilities(self._predictors[number], after.take(mine))))
                counts.append(len(mine))
        return {"fidelity": float(np.average(shares, weights=counts))} if counts else {}

    def _of_originals(self, number: int, rows: pa.Table) -> F64:
        key = (number, tuple(texts(rows)))
        if key not in self._known:
            self._known = dict(list(self._known.items())[-7:])  # a few: each fold of the data has its own
            self._known[key] = probabilities(self._predictors[number], rows)
        return self._known[key]


class Perplexity:
    """How unlikely a causal language model finds texts: exp of the mean surprise of a token (Jelinek et al. 1977)."""

    def __init__(self, source: str, device: torch.device | str) -> None:
        self._source = source
        self._device = device
        self._known: dict[tuple[str, ...], float] = {}

    def __call__(self, before: pa.Table, after: pa.Table) -> dict[str, float]:
        """`perplexity` of the copies; `perplexity_ratio`: in those of their originals."""
        originals = tuple(texts(before))
        if originals not in self._known:
            self._known = {originals: self.of(originals)}
        copies = self.of(texts(after))
        return {"perplexity": copies, "perplexity_ratio": copies / self._known[originals]}

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = assets.resolve(self._source)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return AutoTokenizer.from_pretrained(folder), model.eval().to(self._device)

    def of(self, texts: Sequence[str]) -> float:
        """Over all tokens of the texts together."""
        tokenizer, model = self._loaded
        begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        encoded = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in sorted(texts, key=len))
        ids = [[begin, *tokens[: LONGEST - 1]] for tokens in encoded]
        surprise, tokens = 0.0, 0
        for start in range(0, len(ids), BATCH):
            some = ids[start : start + BATCH]
            longest = max(map(len, some))
            padded = torch.tensor([row + [begin] * (longest - len(row)) for row in some], device=self._device)
            real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in some], device=self._device)
            with torch.no_grad():
                logits = model(input_ids=padded, attention_mask=real).logits[:, :-1].float()
            losses = functional.cross_entropy(logits.transpose(1, 2), padded[:, 1:], reduction="none")
            surprise += float((losses * real[:, 1:]).double().sum())
            tokens += int(real[:, 1:].sum())
        return float(np.exp(surprise / max(1, tokens)))
