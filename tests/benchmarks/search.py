"""A sweep of short trials against the plain recipe of Ray's documentation: same rows, steps, trials and concurrency.

    python tests/benchmarks/search.py [--trials 4] [--peer FILE] [--data DIR]

Both start counting when Ray is up. The peer starts a TorchTrainer for every trial; we stream trials through lanes.
One JSON line: seconds and best score of both, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parents[3] / "shared"
ROWS, BATCH, EPOCHS, CONCURRENT = 200, 32, 3, 2
STEPS = EPOCHS * -(-ROWS // BATCH)
SPACE = """
input.augment.policy.0.0.p: {float: [0.0, 0.3]}
optim.lr: {log: [1e-5, 2e-4]}
control: {input.augment.policy.0.0.p: 0.0, optim.lr: 1e-4}
"""


def ours(trials: int, data: Path) -> dict[str, Any]:
    """Seconds and the best selection accuracy of our sweep."""
    from bothways.cli.tune import quiet_ray

    quiet_ray()
    import ray

    from bothways import data as loading
    from bothways import spaces
    from bothways.config import Experiment, Run, Search
    from bothways.edges.ray_cluster import start_hub, start_ray
    from bothways.edges.ray_train import Lanes
    from bothways.edges.ray_tune import run_search

    source = str(data / "sst2" / "train.tsv")
    base = Experiment(
        data={"source": source, "label": 0, "text": 1, "splits": {"train": ROWS, "selection": ROWS, "test": 1}},
        input={"augment": {"n_aug": 1, "keep_original": False, "policy": [["random_deletion"]]}},
        optim={"steps": STEPS, "batch_size": BATCH, "evaluate_every": STEPS // EPOCHS},
    )
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "space.yaml").write_text(SPACE)
        dataset = loading.load(base.data)
        run = Run(lanes=CONCURRENT)
        start_ray(run)
        began = time.monotonic()
        hub = start_hub(3)
        with Lanes(hub, ray.put(dataset), run, directory):
            run_search(
                Search(space="space.yaml", trials=trials, grace_steps=STEPS),
                spaces.load_space(directory / "space.yaml"),
                base,
                hub=hub,
                directory=directory,
                lanes=CONCURRENT,
                metric="selection/accuracy",
                mode="max",
            )
        seconds = time.monotonic() - began
        reports = [e.report for e in ray.get(hub.events.remote(0)) if e.report]
        ray.shutdown()
    best = max(r.metrics["selection/accuracy"] for r in reports)
    return {"wall_s": round(seconds, 1), "steps": STEPS * trials, "best": round(best, 4)}


def theirs(trials: int, data: Path, peer: Path) -> dict[str, Any]:
    """The same of the peer."""
    from bothways.assets import resolve

    command = [sys.executable, str(peer), "--model", str(resolve("asset:minilm-l6"))]
    command += ["--train", str(data / "sst2" / "train.tsv"), "--test", str(data / "sst2" / "test.tsv")]
    command += ["--rows", str(ROWS), "--dev-rows", str(ROWS), "--trials", str(trials), "--epochs", str(EPOCHS)]
    command += ["--concurrent", str(CONCURRENT), "--cpus", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True)
    line = json.loads(done.stdout.strip().splitlines()[-1])
    return {"wall_s": line["wall_s"], "steps": line["steps"], "best": line["best_dev_accuracy"]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trials", type=int, default=4)
    options.add_argument("--peer", type=Path, default=SHARED / "peers" / "plain_ray_recipe.py")
    options.add_argument("--data", type=Path, default=SHARED / "data")
    chosen = options.parse_args()
    if not chosen.peer.exists() or not chosen.data.exists():
        print(json.dumps({"what": "search", "skipped": f"{chosen.peer} or {chosen.data} is not there"}))
        return
    mine, other = ours(chosen.trials, chosen.data), theirs(chosen.trials, chosen.data, chosen.peer)
    ratio = round(other["wall_s"] / mine["wall_s"], 2)
    print(json.dumps({"what": "search", "trials": chosen.trials, "ours": mine, "peer": other, "ratio": ratio}))


if __name__ == "__main__":
    main()
