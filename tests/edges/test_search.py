"""Tune and Optuna against a real hub; the lane is a thread that scores a point by formula instead of training it."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bothways import spaces
from bothways.config import Experiment, Search
from bothways.config.goals import Goals
from bothways.edges.hub import Event, Outcome
from bothways.results import Report

pytestmark = pytest.mark.ray

BASE = Experiment(data={"source": "unused"}, optim={"steps": 90, "lr": 1e-4})
SPACE = "optim.lr: {log: [1e-6, 1e-2]}\ncontrol: {optim.lr: 1e-4}\n"


def fake_lane(hub: Any, lane: int) -> None:
    """Scores 1 - |log10(lr) + 3| / 10: the best learning rate is 1e-3, and nobody has to train."""
    import math

    import ray

    ray.get(hub.lane_started.remote(lane, "x"))
    for seq in range(10_000):
        job = ray.get(hub.next_job.remote(lane, "x", seq))
        if job is None:
            return
        lr = job.experiment["optim"]["lr"]
        status = "finished"
        for step in range(10, 91, 10):
            score = 1 - abs(math.log10(lr) + 3) / 10 + step / 1000
            report = Report(step=step, steps=90, metrics={"selection/accuracy": score}, seconds=0.0)
            if ray.get(hub.report.remote(job.trial_id, report)) != "go" and step < 90:
                status = "stopped"
                break
        ray.get(hub.finish.remote(Outcome(trial_id=job.trial_id, status=status)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def searched(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    import ray

    from bothways.edges.ray_cluster import start_hub
    from bothways.edges.ray_tune import run_search

    tmp_path = tmp_path_factory.mktemp("search")
    (tmp_path / "space.yaml").write_text(SPACE)
    hub = start_hub(3, "000-")
    lanes = [threading.Thread(target=fake_lane, args=(hub, lane), daemon=True) for lane in (0, 1)]
    for lane in lanes:
        lane.start()
    run_search(
        Search(space="space.yaml", trials=16, grace_steps=10, reduction_factor=3),
        spaces.load_space(tmp_path / "space.yaml"),
        BASE,
        hub=hub,
        directory=tmp_path,
        lanes=range(2),
        goals=Goals(metric="selection/accuracy", mode="max"),
    )
    ray.get(hub.close.remote())
    for lane in lanes:
        lane.join(timeout=10)
    events: list[Event] = ray.get(hub.events.remote(0))
    return events


def test_a_search_runs_the_control_first_stops_at_rungs_only_and_ends_every_trial(searched: list[Event]) -> None:
    begun = [e.job for e in searched if e.kind == "begin" and e.job]
    ended = {e.trial_id: e.outcome for e in searched if e.kind == "end" and e.outcome}
    assert len(begun) == len(ended) == 16
    assert begun[0].trial_id.startswith("000-")
    assert begun[0].experiment["optim"]["lr"] == pytest.approx(1e-4)
    last = {e.trial_id: e.report.step for e in searched if e.report}
    stopped = [name for name, outcome in ended.items() if outcome.status == "stopped"]
    assert stopped, "ASHA stopped nothing: this test would prove nothing"
    assert {last[name] for name in stopped} <= {10, 30, 90}
    assert ended[begun[0].trial_id].status == "finished", "the control was stopped"
    assert all(last[name] == 90 for name in ended if name not in stopped)


def test_the_search_learns_where_the_best_is(searched: list[Event]) -> None:
    rates = [e.job.experiment["optim"]["lr"] for e in searched if e.kind == "begin" and e.job]
    best = min(rates, key=lambda lr: abs(lr - 1e-3))
    assert 1e-4 < best < 1e-2


def test_all_cpus_are_free_after_a_search(cluster: Any, searched: list[Event]) -> None:
    import time

    assert searched
    until = time.monotonic() + 60
    while cluster.available_resources().get("CPU") != cluster.cluster_resources()["CPU"]:
        assert time.monotonic() < until, "CPUs were not given back within 60 s"
        time.sleep(0.5)


def test_a_resumed_search_keeps_its_numbers_goes_on_with_what_was_unfinished_and_repeats_no_point(
    tmp_path: Path,
) -> None:
    from bothways.edges.ray_tune import Past, PointSearch

    (tmp_path / "space.yaml").write_text(SPACE + "start: [{optim.lr: 1e-5}]\n")
    space = spaces.load_space(tmp_path / "space.yaml")
    done, open_ = {"optim.lr": 1e-4}, {"optim.lr": 2e-4}
    search = PointSearch(
        space,
        first=space.first_points(BASE),
        past=[
            Past(number=0, point=done, status="finished", curve={30: 0.6, 90: 0.7}),
            Past(number=3, point=open_, curve={30: 0.6}),
        ],
        goals=Goals(metric="selection/accuracy", mode="max"),
        seed=0,
    )
    suggested = [search.suggest(f"t{k}") for k in range(4)]
    assert suggested[0] == {"number": 3, "point": open_}
    assert suggested[1] == {"number": 1, "point": {"optim.lr": 1e-5}}
    assert [s["number"] for s in suggested] == [3, 1, 2, 4]  # what was proposed and never begun left its number
    points = [s["point"]["optim.lr"] for s in suggested]
    assert done["optim.lr"] not in points
    assert len(set(points)) == 4


def test_a_point_that_was_tried_is_not_tried_again_while_there_is_another(tmp_path: Path) -> None:
    from bothways.edges.ray_tune import PointSearch

    (tmp_path / "space.yaml").write_text("optim.lr: [1e-5, 1e-4, 1e-3]\ncontrol: {optim.lr: 1e-4}\n")
    space = spaces.load_space(tmp_path / "space.yaml")
    search = PointSearch(space, first=space.first_points(BASE), past=[], goals=Goals(metric="m", mode="max"), seed=0)
    points = []
    for k in range(3):
        points.append(search.suggest(f"t{k}")["point"]["optim.lr"])
        search.on_trial_complete(f"t{k}", {"m": 0.5, "step": 90, "ended": "finished"})
    assert sorted(points) == [1e-5, 1e-4, 1e-3]
    assert search.suggest("t3")["number"] == 3  # nothing new is left: it gets its way, as a trial of its own


def asha(past: list[Any], **search: Any) -> Any:
    from bothways.edges.ray_tune import scheduler

    return scheduler(Search(space="", **search), 64, Goals(metric="m", mode="min"), past)


def decision(scheduler: Any, number: int, step: int, value: float) -> str:
    trial = SimpleNamespace(trial_id=str(number), config={"number": number})
    scheduler.on_trial_add(None, trial)
    return str(scheduler.on_trial_result(None, trial, {"step": step, "m": value}))


def test_the_first_rung_is_at_a_quarter_of_a_trial_with_all_its_folds_or_where_the_search_says() -> None:
    assert [milestone for milestone, _ in asha([])._brackets[0]._rungs] == [64, 16]
    assert [milestone for milestone, _ in asha([], folds=4, repeats=2)._brackets[0]._rungs] == [512, 128]
    assert [milestone for milestone, _ in asha([], grace_steps=8, reduction_factor=2)._brackets[0]._rungs][-1] == 8


def test_a_resumed_search_stops_what_the_first_one_would_have_stopped() -> None:
    from bothways.edges.ray_tune import Past

    past = [Past(number=n, point={}, status="finished", curve={16: 0.1 * n, 64: 0.1 * n}) for n in range(1, 5)]
    assert decision(asha([]), 9, 16, 0.9) == "CONTINUE"
    assert decision(asha(past), 9, 16, 0.9) == "STOP"
    assert decision(asha(past), 9, 16, 0.05) == "CONTINUE"
    assert decision(asha(past), 0, 16, 0.9) == "CONTINUE", "the control was stopped"
    assert decision(asha(past), 9, 64, 0.9) == "CONTINUE", "a trial that had ended was stopped"


def test_the_sampler_is_not_told_the_score_of_a_stopped_trial_as_a_result(tmp_path: Path) -> None:
    from optuna.trial import TrialState

    from bothways.edges.ray_tune import PointSearch

    (tmp_path / "space.yaml").write_text(SPACE)
    space = spaces.load_space(tmp_path / "space.yaml")
    search = PointSearch(space, first=[], past=[], goals=Goals(metric="m", mode="min"), seed=0)
    for name, last in {"a": {}, "b": {"ended": "finished"}, "c": {"ended": "failed"}}.items():
        search.suggest(name)
        search.on_trial_result(name, {"step": 10, "m": 0.7})
        search.on_trial_complete(name, {"step": 20, "m": 0.6, **last})
    stopped, finished, failed = search._ot_study.trials
    assert (stopped.state, stopped.intermediate_values) == (TrialState.PRUNED, {10: 0.7, 20: 0.6})
    assert (finished.state, finished.value) == (TrialState.COMPLETE, 0.6)
    assert failed.value == 1e9


def test_as_many_trials_as_lanes_are_under_way_and_one_more_also_when_their_number_changes(tmp_path: Path) -> None:
    from bothways.edges.ray_tune import OneAhead, PointSearch

    (tmp_path / "space.yaml").write_text(SPACE)
    space = spaces.load_space(tmp_path / "space.yaml")
    lanes = [0]
    search = OneAhead(PointSearch(space, first=[], past=[], goals=Goals(metric="m", mode="max"), seed=0), lanes)

    def under_way(names: str) -> int:
        return sum(search.suggest(name) is not None for name in names)

    assert under_way("abc") == 2
    lanes.append(1)
    assert under_way("de") == 1
    lanes.pop()
    search.on_trial_complete("a", {"m": 0.5, "step": 90})
    assert under_way("f") == 0  # three lanes' worth were under way; it must come down to two first
    search.on_trial_complete("b", {"m": 0.5, "step": 90})
    assert under_way("g") == 1
