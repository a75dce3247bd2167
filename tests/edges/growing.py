"""A search on a cluster that gains a node and loses it again; run by test_growing_cluster.py in a process of its own.

Prints one JSON line: the number of lanes over time, and every event but the reports.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

TRIALS = 24
SPACE = "optim.lr: {log: [1e-5, 1e-2]}\ncontrol: {optim.lr: 1e-3}\n"


def main(directory: Path) -> None:
    from bothways.cli.tune import quiet_ray

    quiet_ray()
    import ray
    from ray.cluster_utils import Cluster

    from bothways import spaces
    from bothways.config import Run, Search
    from bothways.edges.hub import Event
    from bothways.edges.ray_cluster import start_hub, start_ray
    from bothways.edges.ray_train import Lanes
    from bothways.edges.ray_tune import run_search
    from tests import tiny

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    run = Run(address=cluster.address, cpus_per_worker=1.0)
    start_ray(run)
    (directory / "space.yaml").write_text(SPACE)
    base = tiny.experiment(optim={"steps": 400, "evaluate_every": 100})
    hub = start_hub(3)
    happened: list[Event] = []
    counts: list[int] = []

    def until(reached: Any) -> None:
        while not reached():
            happened.extend(ray.get(hub.events.remote(len(happened), 0.2)))
            if not counts or counts[-1] != len(lanes):
                counts.append(len(lanes))

    def ends() -> int:
        return sum(e.kind == "end" for e in happened)

    def grow_and_shrink() -> None:
        until(lambda: ends() >= 2)
        second = cluster.add_node(num_cpus=2)
        until(lambda: any(e.kind == "begin" and e.lane == 1 for e in happened))
        until(lambda: any(e.report for e in happened[-3:]))
        cluster.remove_node(second, allow_graceful=False)
        until(lambda: ends() >= TRIALS)

    with Lanes(hub, ray.put(tiny.dataset()), run, directory) as lanes:
        script = threading.Thread(target=grow_and_shrink, daemon=True)
        script.start()
        run_search(
            Search(space="space.yaml", trials=TRIALS, grace_steps=400),
            spaces.load_space(directory / "space.yaml"),
            base,
            hub=hub,
            directory=directory,
            lanes=lanes,
            metric="selection/accuracy",
            mode="max",
        )
        script.join(timeout=60)
        began = time.monotonic()
    said = [
        {"kind": e.kind, "lane": e.lane, "trial": e.trial_id, "note": e.note, "status": e.outcome and e.outcome.status}
        for e in happened
        if e.report is None
    ]
    sys.stdout.write(json.dumps({"lanes": counts, "closing_s": time.monotonic() - began, "events": said}) + "\n")
    sys.stdout.flush()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
