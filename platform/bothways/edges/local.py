"""A trial within this process, Ray left out: what the default tests run, and what a debugger can step through.

One worker through Ray gives exactly these numbers (tests/edges).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor, nn

from bothways import data
from bothways.config import Experiment, Run
from bothways.contracts import Encode, Views
from bothways.errors import one_line
from bothways.results import Report, TrialResult
from bothways.training.trial import Diverged, Trial
from bothways.training.workspace import Workspace

BLOCK_ROWS = 512


class OneWorker:
    """`contracts.Collective` of a single worker."""

    rank = 0
    world = 1

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def sum(self, values: Tensor) -> Tensor:
        return values


def execute(views: Views, encode: Encode) -> Iterator[pa.Table]:
    """`contracts.Execute`: block by block, when asked for."""
    for start in range(0, views.num_rows, BLOCK_ROWS):
        yield encode(views.slice(start, BLOCK_ROWS))


def device(run: Run) -> torch.device:
    """The GPU when there is one and the run does not decline it."""
    wants = run.gpus_per_worker == "auto" or run.gpus_per_worker > 0
    return torch.device("cuda" if wants and torch.cuda.is_available() else "cpu")


def run(
    experiment: Experiment,
    run: Run,
    *,
    trial_id: str,
    directory: Path,
    dataset: data.Dataset | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    score_test: bool = False,
    workspace: Workspace | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> TrialResult:
    """Train `experiment` and save its model in `directory`, going on from a checkpoint found there.

    `on_report`: hears all reports, also those made before a restart; returns False to stop the trial. `score_test`:
    score the test rows at the end. `workspace`: of an earlier call, to load nothing twice. `tell`: hears what its user
    should know of the trial.
    A trial that diverges is a result with status `failed`; every other error is raised.
    """
    torch.set_num_threads(run.threads)
    trial = Trial(
        experiment,
        data.load(experiment.data, task=experiment.task) if dataset is None else dataset,
        collective=OneWorker(),
        execute=execute,
        workspace=workspace or Workspace(device(run)),
        directory=directory,
    )

    for note in trial.notes:
        tell(note)
    if on_report is not None:
        for report in trial.history:
            on_report(report)

    def result(**how: object) -> TrialResult:
        spec = experiment.spec()
        return TrialResult(trial_id=trial_id, experiment=spec, reports=tuple(trial.history), **how)  # type: ignore[arg-type]

    try:
        for report in trial.reports():
            if on_report is not None and on_report(report) is False and report.step < report.steps:
                trial.discard()
                return result(status="stopped")
    except Diverged as error:
        trial.discard()
        return result(status="failed", error=one_line(error))
    test = trial.score_test().metrics if score_test else {}
    return result(status="finished", test=test, model_dir=str(trial.save()))
