"""A cross-validation equals its folds trained by hand, added up; and goes on after an interruption to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bothways import data
from bothways.config import Experiment
from bothways.errors import UserError
from bothways.metrics import classification_width
from bothways.results import Report
from bothways.training.cross_validation import CrossValidation, experiments
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace
from tests import tiny

FOLDS, REPEATS, STEPS = 3, 2, 10
WHOLE = FOLDS * REPEATS * STEPS


pytestmark = pytest.mark.usefixtures("a_checkpoint_at_every_report")


def base(**optim: object) -> Experiment:
    return tiny.experiment(optim={"steps": STEPS, "evaluate_every": 5, "lr": 5e-3, **optim}, seed=3)


def validation(directory: Path, workspace: Workspace, what: Experiment | None = None) -> CrossValidation:
    whole = tiny.dataset()

    def begin(one: Experiment, where: Path) -> Trial:
        assert one.data.fold
        return tiny.trial(one, where, workspace, data.folded(whole, one.data.fold, one.data.split_seed))

    return CrossValidation(experiments(what or base(), FOLDS, REPEATS), begin, directory=directory)


def timeless(reports: Sequence[Report]) -> list[Report]:
    return [
        replace(r, seconds=0.0, metrics={k: v for k, v in r.metrics.items() if not k.startswith("time/")})
        for r in reports
    ]


@pytest.fixture(scope="module")
def undisturbed(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> list[Report]:
    return timeless(list(validation(tmp_path_factory.mktemp("undisturbed"), workspace).reports()))


def test_the_experiments_are_all_folds_of_each_division_with_seeds_of_their_own() -> None:
    found = experiments(base(), FOLDS, REPEATS)
    folds = [one.data.fold for one in found]
    assert [(f.repeat, f.number) for f in folds if f] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [one.seed for one in found] == [3, 4, 5, 6, 7, 8]
    assert len({one.digest for one in found}) == 6
    assert {one.model_copy(update={"seed": 3, "data": base().data}).digest for one in found} == {base().digest}


@pytest.mark.slow
def test_reports_come_at_cumulative_steps_over_the_rows_of_every_fold(
    undisturbed: list[Report], workspace: Workspace, tmp_path: Path
) -> None:
    assert [report.step for report in undisturbed] == list(range(5, WHOLE + 1, 5))
    assert {report.steps for report in undisturbed} == {WHOLE}

    whole, total = tiny.dataset(), torch.zeros(classification_width(2), dtype=torch.float64)
    for number, one in enumerate(experiments(base(), FOLDS, REPEATS)):
        assert one.data.fold
        trial = tiny.trial(one, tmp_path / str(number), workspace, data.folded(whole, one.data.fold, 0))
        alone = list(trial.reports())
        for report, joined in zip(alone, undisturbed[2 * number :], strict=False):
            assert joined.metrics["train/loss"] == report.metrics["train/loss"]
            assert joined.metrics["cost/steps"] == number * STEPS + report.step
        assert trial.sums is not None
        total = total + trial.sums
        expected = base().task.metrics(total)
        assert {k: undisturbed[2 * number + 1].metrics[f"selection/{k}"] for k in expected} == expected
    assert total[-1] == REPEATS * 70, "not every row was scored once in each repeat"


@pytest.mark.parametrize(
    "until", [pytest.param(10, marks=pytest.mark.slow), 25, pytest.param(WHOLE, marks=pytest.mark.slow)]
)
def test_an_interrupted_one_goes_on_to_the_same_numbers(
    undisturbed: list[Report], workspace: Workspace, tmp_path: Path, until: int
) -> None:
    first = validation(tmp_path, workspace)
    before = []
    reports = first.reports()
    for report in reports:
        before.append(report)
        if report.step == until:
            first.checkpoint()
            break
    reports.close()  # type: ignore[attr-defined]
    second = validation(tmp_path, workspace)
    assert timeless([*before, *second.reports()]) == undisturbed
    model = second.save()
    assert (model / "weights.safetensors").exists()
    assert [p.name for p in tmp_path.iterdir() if any(p.iterdir())] == [model.parent.name], "something was left behind"


def test_one_that_is_stopped_leaves_nothing_to_go_on_from(workspace: Workspace, tmp_path: Path) -> None:
    stopped = validation(tmp_path, workspace)
    reports = stopped.reports()
    assert [next(reports).step for _ in range(3)] == [5, 10, 15]
    reports.close()  # type: ignore[attr-defined]
    stopped.discard()
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.slow
def test_a_fold_that_patience_ends_counts_as_its_whole_budget(workspace: Workspace, tmp_path: Path) -> None:
    impatient = base(evaluate_every=1, patience=1, lr=0.5)
    found = list(validation(tmp_path, workspace, impatient).reports())
    assert len(found) < WHOLE
    begins = [report.step for report in found if (report.step - 1) % STEPS == 0]
    assert begins == [1 + STEPS * number for number in range(FOLDS * REPEATS)]
    assert found[-1].metrics["cost/steps"] == len(found)


def test_the_folds_of_another_experiment_are_not_mixed_in(workspace: Workspace, tmp_path: Path) -> None:
    first = validation(tmp_path, workspace)
    reports = first.reports()
    while next(reports).step <= STEPS:
        pass
    with pytest.raises(UserError, match="holds the folds of another experiment"):
        validation(tmp_path, workspace, base(lr=1e-3))
