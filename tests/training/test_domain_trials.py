"""Trials that read text of another domain, end to end: what they own resumes, and leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways import models
from bothways.results import Report
from bothways.training.workspace import Workspace
from tests import tiny

TWO_DOMAINS = {
    "output": {
        "objectives": [
            {"name": "dann", "strength": 0.3},
            {"name": "gan", "strength": 0.5},
            {"name": "domain_embedding", "loss": "dann", "strength": 0.2},
            {"name": "coral"},
        ],
    },
    "optim": {"steps": 8, "evaluate_every": 2, "patience": 10},
}
DATA = tiny.dataset()

pytestmark = [pytest.mark.usefixtures("a_checkpoint_at_every_report"), pytest.mark.slow]


def digest(workspace: Workspace) -> str:
    return models.digest(workspace.model(tiny.model_dir(), tiny.LABELS).module.state_dict())


def comparable(reports: list[Report]) -> list[dict[str, float]]:
    return [{k: v for k, v in report.metrics.items() if not k.startswith("time/")} for report in reports]


def test_own_modules_resume_to_the_last_bit_and_leave_no_trace(tmp_path: Path, workspace: Workspace) -> None:
    what = tiny.experiment(**TWO_DOMAINS)
    straight = tiny.trial(what, tmp_path / "straight", workspace, DATA)
    expected, end = comparable(list(straight.reports())), digest(workspace)
    assert all(f"train/{name}" in expected[-1] for name in ("dann/told_apart", "gan/matched", "coral/distance"))
    warm = tiny.trial(what, tmp_path / "warm", workspace, DATA)
    assert (comparable(list(warm.reports())), digest(workspace)) == (expected, end)

    broken = tiny.trial(what, tmp_path / "broken", workspace, DATA)
    for report in broken.reports():
        if report.step == 4:
            break
    again = tiny.trial(what, tmp_path / "broken", Workspace(), DATA)
    list(again.reports())
    assert (comparable(again.history), digest(again._workspace)) == (expected, end)


def test_the_saved_model_of_two_domains_is_an_ordinary_one(tmp_path: Path, workspace: Workspace) -> None:
    trial = tiny.trial(tiny.experiment(**TWO_DOMAINS), tmp_path, workspace, DATA)
    list(trial.reports())
    scored = trial.score_test()
    bundle, _ = models.load_saved(trial.save())
    assert set(bundle.module.state_dict()) == set(workspace.model(tiny.model_dir(), tiny.LABELS).module.state_dict())
    assert models.digest(bundle.module.state_dict()) == digest(workspace)
    assert len(scored.hits) == DATA.test.num_rows
