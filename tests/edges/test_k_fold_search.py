"""A search whose trials are cross-validations, on a real Ray: every fold through a lane, stopped between reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bothways import data, spaces
from bothways.config import Experiment, Run, Search
from bothways.config.goals import Goals
from bothways.results import Report
from bothways.training.cross_validation import CrossValidation, experiments
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

pytestmark = pytest.mark.ray

FOLDS, STEPS = 3, 10
SPACE = "optim.lr: {log: [1e-5, 1e-1]}\ncontrol: {optim.lr: 1e-3}\n"


def here(experiment: Experiment, directory: Path) -> list[Report]:
    """The same cross-validation in this process."""
    from tests import tiny

    whole, workspace = tiny.dataset(), Workspace()

    def begin(one: Experiment, where: Path) -> Trial:
        assert one.data.fold
        return tiny.trial(one, where, workspace, data.folded(whole, one.data.fold, one.data.split_seed))

    return list(CrossValidation(experiments(experiment, FOLDS), begin, directory=directory).reports())


def test_trials_are_compared_over_folds_stopped_within_them_and_equal_the_local_ones(
    cluster: Any, tmp_path: Path
) -> None:
    import ray

    from bothways.edges.ray_cluster import start_hub
    from bothways.edges.ray_train import Lanes
    from bothways.edges.ray_tune import run_search
    from tests import tiny

    (tmp_path / "space.yaml").write_text(SPACE)
    base = tiny.experiment(optim={"steps": STEPS, "evaluate_every": 5, "lr": 1e-3})
    hub = start_hub(3, "000-")
    run = Run(lanes=1, cpus_per_worker=0.5)
    with Lanes(hub, ray.put(tiny.dataset()), run, tmp_path) as lanes:
        run_search(
            Search(space="space.yaml", trials=8, folds=FOLDS, grace_steps=5, reduction_factor=2),
            spaces.load_space(tmp_path / "space.yaml"),
            base,
            hub=hub,
            directory=tmp_path,
            lanes=lanes,
            goals=Goals(metric="selection/log_loss", mode="min"),
        )
    events = ray.get(hub.events.remote(0))
    jobs = {e.trial_id: e.job for e in events if e.job}
    reports = {name: [e.report for e in events if e.report and e.trial_id == name] for name in jobs}
    outcomes = {e.trial_id: e.outcome for e in events if e.outcome}
    assert len(jobs) == 8
    stopped = [name for name, outcome in outcomes.items() if outcome.status == "stopped"]
    finished = [name for name, outcome in outcomes.items() if outcome.status == "finished"]
    assert stopped and "000-lr-0.001" in finished
    assert {reports[name][-1].step for name in finished} == {FOLDS * STEPS}
    assert {reports[name][-1].step for name in stopped} <= {5, 10, 20}

    control = reports["000-lr-0.001"]
    alone = here(Experiment(**jobs["000-lr-0.001"].experiment), tmp_path / "here")
    assert [(r.step, r.metrics["selection/log_loss"]) for r in control] == [
        (r.step, r.metrics["selection/log_loss"]) for r in alone
    ]
    model = Path(outcomes["000-lr-0.001"].model_dir)
    assert (model.parent.name, (model / "weights.safetensors").exists()) == (f"fold-{FOLDS - 1:02d}", True)
    assert not list((tmp_path / "trials").rglob("*.pt")), "a checkpoint was left behind"
