"""K-fold cross-validation as one trial: an experiment's folds, trained one after another, scored as one set of rows.

With few labels a selection split is so small that its score is mostly chance; over all folds every labelled row is
scored once a repeat. Stratified and repeated: Kohavi 1995. Every fold is an ordinary experiment, and every trial of a
search has the same folds, orders and seeds, so trials are compared at equal steps on equal rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.config import Experiment, Fold
from bothways.contracts import TaskLike
from bothways.errors import UserError
from bothways.results import Report
from bothways.training import checkpoints

if TYPE_CHECKING:
    from torch import Tensor

    from bothways.training.trial import Scored, Trial

COSTS = ("cost/steps", "cost/passes", "cost/tokens")
"""Metrics that grow from report to report; over several folds they add up."""


def experiments(experiment: Experiment, folds: int, repeats: int = 1) -> list[Experiment]:
    """The `repeats` x `folds` experiments of a cross-validation, in order, each with a seed of its own.

    Training number i is fold i modulo `folds` of division i // `folds`, with the experiment's seed + i.
    """
    found = []
    for index in range(folds * repeats):
        fold = Fold(of=folds, number=index % folds, repeat=index // folds)
        data = experiment.data.model_copy(update={"fold": fold})
        found.append(experiment.model_copy(update={"data": data, "seed": experiment.seed + index}))
    return found


class CrossValidation:
    """What a lane asks of a trial, over `experiments` in a row. Its model is that of the last fold.

    `begin(experiment, directory)` makes the trial of one fold; it is called when the fold before has ended, for they
    share one model. `directory`: each fold has its own in it, and beside them stands what the ended ones have scored:
    an interrupted cross-validation goes on from the last checkpoint of its open fold.
    `rank`: of this worker; the first one writes. `notes`: one line for everything its user should know.

    Raises `UserError` when the directory holds another experiment's folds.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        begin: Callable[[Experiment, Path], Trial],
        *,
        directory: Path,
        rank: int = 0,
    ) -> None:
        self.notes: list[str] = []
        self._experiments = experiments
        self._begin = begin
        self._directory = directory
        self._rank = rank
        self._trial: Trial | None = None
        loaded = checkpoints.load(directory / "folds")
        self.notes.extend(loaded.notes)
        self._ended: Mapping[str, Any] = loaded.state or {"folds": 0, "sums": None, "costs": {}, "seconds": 0.0}
        if self._ended["folds"] and self._ended["experiment"] != experiments[0].digest:
            raise UserError(f"{directory} holds the folds of another experiment: choose another directory")

    def reports(self) -> Iterator[Report]:
        """The folds' reports at cumulative steps: selection metrics are over all rows scored so far.

        Each fold counts as its whole budget of steps, also where patience has ended it before. Closing it stops the
        trial where it is.
        """
        while True:
            number = self._ended["folds"]
            trial = self._trial = self._begin(self._experiments[number], self._directory / f"fold-{number:02d}")
            with closing(trial.reports()) as reports:  # type: ignore[type-var]
                for report in reports:
                    assert trial.sums is not None
                    yield combined(report, trial.sums, self._ended, self._experiments)
            self.notes.extend(note for note in trial.notes if note not in self.notes)
            if number + 1 == len(self._experiments):
                return
            self._end_fold(trial)

    def _end_fold(self, trial: Trial) -> None:
        """Keep what the fold has scored, then drop its checkpoints; in this order, so that a kill loses neither."""
        last = trial.history[-1]
        before = self._ended
        self._ended = {
            "experiment": self._experiments[0].digest,
            "folds": before["folds"] + 1,
            "sums": _plus(trial.sums, before["sums"]),
            "costs": {name: last.metrics[name] + before["costs"].get(name, 0.0) for name in COSTS},
            "seconds": before["seconds"] + last.seconds,
        }
        if self._rank == 0:
            checkpoints.save(self._directory / "folds", self._ended["folds"], self._ended)
        trial.discard()

    @property
    def _last(self) -> Trial:
        assert self._trial is not None, "no fold has begun"
        return self._trial

    def score_test(self) -> Scored:
        """The last fold's model on the test rows."""
        return self._last.score_test()

    def save(self) -> Path:
        """Save the last fold's model and drop what the others have left. Returns where it is."""
        return self.saving()()

    def saving(self) -> Callable[[], Path]:
        """`save`, in two parts: this takes the weights; what it returns does the rest, at any time (`Trial.saving`)."""
        save = self._last.saving()

        def write() -> Path:
            target = save()
            self._forget()
            return target

        return write

    def checkpoint(self) -> None:
        """Write a checkpoint of the last report."""
        self._last.checkpoint()

    def discard(self) -> None:
        """Drop the checkpoints: the trial is over, or was stopped for good."""
        self._last.discard()
        self._forget()

    def _forget(self) -> None:
        if self._rank == 0:
            for left in (self._directory / "folds", *self._directory.glob("fold-*/checkpoints")):
                shutil.rmtree(left, ignore_errors=True)


def combined(report: Report, sums: Tensor, ended: Mapping[str, Any], experiments: Sequence[Experiment]) -> Report:
    """A fold's report as one of the whole cross-validation. `sums`: the task's over the fold's selection rows.

    `ended`: of the folds before, how many (`folds`), their last `sums` (None for none), `costs` and `seconds`, added.
    """
    task: TaskLike = experiments[0].task
    scored = task.metrics(_plus(sums, ended["sums"]))
    costs = {name: report.metrics[name] + ended["costs"].get(name, 0.0) for name in COSTS}
    return Report(
        step=ended["folds"] * report.steps + report.step,
        steps=len(experiments) * report.steps,
        metrics={**report.metrics, **{f"selection/{name}": value for name, value in scored.items()}, **costs},
        seconds=ended["seconds"] + report.seconds,
    )


def _plus(sums: Tensor | None, before: Tensor | None) -> Tensor:
    assert sums is not None, "a fold has ended without a report"
    return sums if before is None else sums + before
