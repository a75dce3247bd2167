"""A lane's worker is killed in the middle of a trial: the others go on, and its trial ends as if nothing had been."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bothways.config import Experiment, Run
from bothways.edges.hub import Event, Job
from tests.edges.test_ray_trial import numbers, weights

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos]

STEPS, EVERY = 800, 20
TRIALS = 4


def experiment(seed: int) -> Experiment:
    from tests import tiny

    return tiny.experiment(seed=seed, optim={"steps": STEPS, "evaluate_every": EVERY})


def process(lane: int, events: list[Event]) -> int:
    """The process of a lane's first worker, as the lane itself has said."""
    notes = [e.note for e in events if e.kind == "lane" and e.lane == lane]
    found = re.search(r"in process (\d+)", notes[-1])
    assert found, notes
    return int(found[1])


def under_way(events: list[Event], directory: Path) -> dict[int, str]:
    """Lane → its trial, for trials that are past their first checkpoint and not past half of their steps."""
    found = {}
    for event in events:
        reports = [e.report.step for e in events if e.trial_id == event.trial_id and e.report]
        saved = list((directory / event.trial_id / "checkpoints").glob("step-*"))
        if event.kind == "begin" and saved and reports and reports[-1] < STEPS / 2:
            found[event.lane] = event.trial_id
    return found


def test_only_the_killed_workers_trial_pays_and_it_ends_with_the_same_weights(cluster: Any, tmp_path: Path) -> None:
    import ray

    from bothways.edges import local
    from bothways.edges.ray_cluster import start_hub
    from bothways.edges.ray_train import Lanes
    from tests import tiny

    hub, events = start_hub(3), list[Event]()
    names = [f"{number:03d}" for number in range(TRIALS)]

    def until(reached: Any, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            events.extend(ray.get(hub.events.remote(len(events), 0.05)))
            if reached():
                return
            assert time.monotonic() < end, [(e.kind, e.lane, e.trial_id, e.note) for e in events if not e.report]

    with Lanes(hub, ray.put(tiny.dataset()), Run(lanes=2, cpus_per_worker=0.5), tmp_path):
        for seed, name in enumerate(names):
            spec, directory = experiment(seed).spec(), str(tmp_path / name)
            ray.get(hub.submit.remote(Job(trial_id=name, experiment=spec, directory=directory, lock_step=False)))
        until(lambda: len({e.lane for e in events if e.kind == "begin"}) == 2 and under_way(events, tmp_path), 120)
        lane, victim = next(iter(under_way(events, tmp_path).items()))
        killed_at = time.time()
        os.kill(process(lane, events), signal.SIGKILL)
        until(lambda: sum(e.kind == "end" for e in events) == TRIALS, 400)

    ends = {e.trial_id: e.outcome for e in events if e.outcome}
    assert {o.status for o in ends.values()} == {"finished"}, ends
    for name in names:  # nothing is lost, nothing is there twice
        steps = [e.report.step for e in events if e.report and e.trial_id == name]
        assert steps == list(range(EVERY, STEPS + 1, EVERY)), name

    went_on = re.search(r"went on from step (\d+)", ends[victim].note)
    assert went_on, "the killed trial began anew"
    assert int(went_on[1]) >= EVERY
    assert not any("went on" in o.note for name, o in ends.items() if name != victim)
    same = local.run(
        experiment(int(victim)), Run(), trial_id="x", directory=tmp_path / "undisturbed", dataset=tiny.dataset()
    )
    assert weights(ends[victim].model_dir) == weights(same.model_dir)
    assert numbers([e.report for e in events if e.report and e.trial_id == victim]) == numbers(same.reports)

    back = [e.at for e in events if e.kind == "lane" and e.lane == lane and "started" in e.note and e.at > killed_at]
    assert back, "the killed lane did not come back"
    undisturbed = [e.at for e in events if e.report and e.trial_id != victim and killed_at < e.at < back[0]]
    gaps = [b - a for a, b in itertools.pairwise([killed_at, *undisturbed, back[0]])]
    assert max(gaps) < (back[0] - killed_at) / 3, "the other lane waited for the killed one"
