"""Several trained models as one: their weights averaged (model soups), or their probabilities.

- `uniform`: the mean of all weights. `greedy`: from the best model on, each next one goes into the mean unless that
  makes it worse on the selection rows (Wortsman et al. 2022). Both are one model, and cost what one costs.
- `top-k`: the mean of the models' probabilities (Dietterich 2000). With models that differ by their seed only, this is
  a seed ensemble (deep ensembles, Lakshminarayanan et al. 2017).

Selection rows decide; test rows are looked at once, when all is decided.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bothways import models, training
from bothways.batches import batching
from bothways.contracts import Batch, TaskLike
from bothways.errors import UserError, one_line
from bothways.predict import Prediction, Predictor
from bothways.seeding import F64
from bothways.training.checkpoints import atomic_directory

Method = Literal["greedy", "uniform", "top-k"]
Weights = Mapping[str, Tensor]
Score = tuple[float, ...]
"""Of the selection rows; larger is better."""

_ENSEMBLE = "ensemble.json"
_SOUP = "soup.json"


# -- pure ----------------------------------------------------------------------------------------------------------


def mean(weights: Sequence[Weights]) -> dict[str, Tensor]:
    """The mean of several models' weights, name by name; what is no fraction (a position, say) is the first one's."""
    first, *_ = weights
    return {
        name: torch.stack([each[name] for each in weights]).mean(dim=0) if value.is_floating_point() else value.clone()
        for name, value in first.items()
    }


def greedy(count: int, score: Callable[[Sequence[int]], Score]) -> list[int]:
    """Which of `count` models, best first, go into a greedy soup. `score`: of the soup of some of them."""
    chosen = [0]
    best = score(chosen)
    for candidate in range(1, count):
        found = score([*chosen, candidate])
        if found >= best:
            chosen, best = [*chosen, candidate], found
    return chosen


# -- saved ensembles -------------------------------------------------------------------------------------------------


class Ensemble:
    """`Predictor`'s like for a directory of several models: the mean of their probabilities."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        self.members = members
        self.labels = members[0].labels
        self.paired = members[0].paired

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """A prediction for each text (and its pair), in order."""
        found = np.mean([probabilities(member, texts, pairs) for member in self.members], axis=0)
        likeliest = [self.labels[at] for at in found.argmax(axis=1).tolist()]
        return [
            Prediction(label=label, probabilities=dict(zip(self.labels, row, strict=True)), value=label)
            for label, row in zip(likeliest, found.tolist(), strict=True)
        ]


def probabilities(by: Predictor | Ensemble, texts: Sequence[str], pairs: Sequence[str] | None = None) -> F64:
    """The probability of every label for each text (and its pair), in order: (N, C)."""
    rows = [[said.probabilities[label] for label in by.labels] for said in by(texts, pairs)]
    return np.array(rows, np.float64).reshape(len(texts), len(by.labels))


def predictor(directory: Path, device: torch.device | str = "cpu") -> Predictor | Ensemble:
    """What is in a directory: a saved or exported model, or an ensemble. Raises `UserError` when it is neither."""
    file = directory / _ENSEMBLE
    if not file.exists():
        return Predictor(directory, device)
    try:
        names = [str(name) for name in json.loads(file.read_text("utf-8"))["members"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}") from error
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{file} names no models, or some outside of its directory")
    return Ensemble([Predictor(directory / name, device) for name in names])


# -- a sweep's models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trial's saved model. `metrics`: of the selection rows, by itself."""

    name: str
    directory: Path
    about: models.About
    metrics: Mapping[str, float]
    score: Score


@dataclass(frozen=True, kw_only=True)
class Made:
    """What was made of `members`, best first: its metrics on both splits, those of the best of them, and `notes`.

    `candidates`: all that were looked at, best first.
    """

    directory: Path
    method: Method
    candidates: tuple[Candidate, ...]
    members: tuple[str, ...]
    selection: Mapping[str, float]
    test: Mapping[str, float]
    alone: Mapping[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """Labelled rows that models are scored by. `metric` ranks before what the task ranks by."""

    task: TaskLike
    table: pa.Table
    metric: str

    def said(self, by: Predictor | Ensemble) -> F64:
        """The probability of every label for each row, (N, C)."""
        pairs = self.table["pair"].to_pylist() if by.paired else None
        return probabilities(by, self.table["text"].to_pylist(), pairs)

    def metrics(self, said: F64) -> dict[str, float]:
        """The task's, of those probabilities."""
        labels = torch.from_numpy(np.array(self.table["label"].to_numpy(), np.int64))
        logits = torch.from_numpy(said).clamp_min(torch.finfo(torch.float64).tiny).log()
        batch = Batch(inputs={}, labels=labels, is_copy=torch.zeros_like(labels, dtype=torch.bool))
        return self.task.metrics(self.task.sums(logits, batch))

    def score(self, metrics: Mapping[str, float]) -> Score:
        sign = 1 if self.task.directions[self.metric] == "max" else -1
        return (sign * metrics[self.metric], *training.score(self.task, metrics))


def make(
    trials: Mapping[str, Path],
    *,
    load: Callable[[Any], Any],
    method: Method,
    k: int,
    metric: str,
    out: Path,
) -> Made:
    """Make a soup or an ensemble of the `k` best of some trials, given by the directories of their saved models.

    `load`: the dataset of a `config.Data`. `metric`: of the selection rows, by which models are ranked.
    Raises `UserError`: no models, models of other data or labels, `out` is there already.
    """
    if out.exists():
        raise UserError(f"{out} exists already: choose another directory")
    abouts = {name: models.read_about(directory) for name, directory in trials.items()}
    _alike(abouts)
    experiment = next(iter(abouts.values())).experiment
    dataset = load(experiment.data)
    selection, test = (Rows(experiment.task, table, metric) for table in (dataset.selection, dataset.test))
    candidates = []
    for name, directory in trials.items():
        metrics = selection.metrics(selection.said(Predictor(directory)))
        score = selection.score(metrics)
        candidates.append(Candidate(name=name, directory=directory, about=abouts[name], metrics=metrics, score=score))
    candidates.sort(key=lambda candidate: candidate.score, reverse=True)
    best, notes, soup = candidates[:k], [], None
    if method == "top-k":
        found: Predictor | Ensemble = Ensemble([Predictor(candidate.directory) for candidate in best])
        members = best
    else:
        alike = [candidate for candidate in best if _blends(candidate.about, best[0].about)]
        notes += [f"{c.name} is left out: it has another base or reads text otherwise" for c in best if c not in alike]
        soup = _Soup(alike, selection)
        members = [alike[i] for i in (soup.greedy() if method == "greedy" else range(len(alike)))]
        found = soup.of([alike.index(member) for member in members])
    made = Made(
        directory=out,
        method=method,
        candidates=tuple(candidates),
        members=tuple(member.name for member in members),
        selection=selection.metrics(selection.said(found)),
        test=test.metrics(test.said(found)),
        alone=test.metrics(test.said(Predictor(candidates[0].directory))),
        notes=tuple(notes),
    )
    _write(made, members, soup)
    return made


def _alike(abouts: Mapping[str, models.About]) -> None:
    if not abouts:
        raise UserError("there is no saved model: no trial has finished")
    (first, one), *others = abouts.items()
    if one.experiment.task.name != "classification":
        raise UserError(f"{first} has the task {one.experiment.task.name}: soups and ensembles are of classifiers only")
    for name, other in others:
        if (other.labels, other.paired) != (one.labels, one.paired) or other.experiment.data != one.experiment.data:
            raise UserError(f"{first} and {name} were trained on other data: they cannot be compared")
        if other.experiment.task != one.experiment.task:
            raise UserError(f"{first} and {name} have different tasks: they cannot be compared")


def _blends(one: models.About, other: models.About) -> bool:
    """Whether the mean of their weights may mean anything: the same base, and text is read the same way."""

    def reading(about: models.About) -> Any:
        model = about.experiment.model
        side = batching.evaluation_side(about.experiment.input)
        return about.base, model.max_length, model.vocabulary, side and side.model_dump(mode="json")

    return one.base is not None and reading(one) == reading(other)


class _Soup:
    """Soups of some candidates, best first, in the model of the best one. `stored`: the last of them, to be saved."""

    def __init__(self, candidates: Sequence[Candidate], selection: Rows) -> None:
        self._selection = selection
        self._pot = Predictor(candidates[0].directory)
        self._weights = [self._taken(self._pot)]
        self.stored: Weights = {}
        for candidate in candidates[1:]:
            self._weights.append(self._taken(Predictor(candidate.directory)))
            gc.collect()  # a model is a circle of objects: one at a time is enough

    @staticmethod
    def _taken(predictor: Predictor) -> Weights:
        return {name: value.detach().cpu().clone() for name, value in predictor.bundle.module.state_dict().items()}

    def of(self, numbers: Sequence[int]) -> Predictor:
        """The mean of some, rounded to what a saved model holds."""
        bundle = self._pot.bundle
        bundle.module.load_state_dict(mean([self._weights[number] for number in numbers]))
        self.stored = models.compact(bundle)
        models.restore(bundle, self.stored)
        return self._pot

    def greedy(self) -> list[int]:
        rows = self._selection
        return greedy(len(self._weights), lambda numbers: rows.score(rows.metrics(rows.said(self.of(numbers)))))

    def save(self, directory: Path, about: models.About) -> None:
        models.save(
            directory,
            self.stored,
            base=self._pot.bundle.base,
            labels=about.labels,
            paired=about.paired,
            experiment=about.experiment,
        )


def _write(made: Made, members: Sequence[Candidate], soup: _Soup | None) -> None:
    """A soup as an ordinary saved model with `soup.json` beside; an ensemble as its members and `ensemble.json`."""
    said = {"method": made.method, "members": made.members, "selection": made.selection, "test": made.test}
    text = json.dumps({"format": 1, **said}, indent=1)
    if soup is not None:
        soup.save(made.directory, members[0].about)
        (made.directory / _SOUP).write_text(text, "utf-8")
        return
    with atomic_directory(made.directory) as aside:
        for member in members:
            shutil.copytree(member.directory, aside / member.name)
        (aside / _ENSEMBLE).write_text(text, "utf-8")
