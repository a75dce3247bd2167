"""Lanes on a cluster that gains a node and loses it again; run by test_growing_cluster.py in a process of its own.

Prints one JSON line: the number of lanes over time, the trial that the lost node had, and every event but the reports.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

TRIALS = 60


def main(directory: Path) -> None:
    from bothways.cli.tune import quiet_ray

    quiet_ray()
    import ray
    from ray.cluster_utils import Cluster

    from bothways.config import Run
    from bothways.edges.hub import Event, Job
    from bothways.edges.ray_cluster import start_hub, start_ray
    from bothways.edges.ray_train import Lanes
    from tests import tiny

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    run = Run(address=cluster.address)
    start_ray(run)
    hub = start_hub(3)
    events: list[Event] = []
    counts: list[int] = []

    def until(reached: Callable[[], bool]) -> None:
        while not reached():
            events.extend(ray.get(hub.events.remote(len(events), 0.2)))
            if not counts or counts[-1] != len(lanes):
                counts.append(len(lanes))

    def ended() -> set[str]:
        return {e.trial_id for e in events if e.kind == "end"}

    def on(lane: int) -> list[str]:
        return [e.trial_id for e in events if e.kind == "begin" and e.lane == lane and e.trial_id not in ended()]

    with Lanes(hub, ray.put(tiny.dataset()), run, directory) as lanes:
        for number in range(TRIALS):
            name = f"{number:03d}"
            spec = tiny.experiment(seed=number, optim={"steps": 200, "evaluate_every": 20}).spec()
            ray.get(
                hub.submit.remote(Job(trial_id=name, experiment=spec, directory=str(directory / name), lock_step=False))
            )
        until(lambda: bool(on(0)))
        second = cluster.add_node(num_cpus=2)
        until(lambda: bool(on(1)))
        lost = on(1)[-1]
        cluster.remove_node(second, allow_graceful=False)
        until(lambda: len(lanes) == 1 and lost in ended())
        enough = len(ended()) + 2
        until(lambda: len(ended()) >= enough)
        closing = time.monotonic()
    said = [
        {"kind": e.kind, "lane": e.lane, "trial": e.trial_id, "note": e.note, "status": e.outcome and e.outcome.status}
        for e in events
        if e.report is None
    ]
    told = {"lanes": counts, "lost": lost, "closing_s": time.monotonic() - closing, "events": said}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
