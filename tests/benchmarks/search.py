"""Sweeps of short trials: how soon a trial starts, what a sweep costs beside its training, and the peer's recipe.

    python tests/benchmarks/search.py [start sweep overhead search] [--trials 32] [--precision auto]
        [--peer FILE] [--data DIR]

`start`: seconds from the word that ended a lane's last trial to the first optimiser step of its next one, over 32 warm
trials of 2 lanes. `sweep`: wall time of 16 trials of about 5 s on 2 lanes, over what their optimiser steps and
evaluations took by themselves, divided by 2; from the first trial's begin, and with Ray and the lanes started; and the
processor time of MLflow's thread, its import and the models included, over the same.
`overhead`: processor time of a trial through `edges/local` over that of a bare loop with the same model, optimiser and
batches. `search`: the whole of a small search beside the recipe of Ray's documentation, which starts a TorchTrainer
for every trial: same rows, steps and concurrency; both begin to count when Ray is up. Once with trials of 21 steps,
once with trials of two; more of ours than of the peer's, whose trials all cost the same. Ours train in bf16 where the
processor multiplies it, the recipe in fp32, as it is written; `--precision fp32` gives both the latter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import row

SHARED = Path(__file__).parents[3] / "shared"
LANES = 2
BATCH = 32
SPACE = """
input.augment.policy.0.0.p: {float: [0.0, 0.3]}
optim.lr: {log: [1e-5, 2e-4]}
control: {input.augment.policy.0.0.p: 0.0, optim.lr: 1e-4}
"""


@dataclass(frozen=True)
class Size:
    """How large a search beside the peer's is: rows to learn from and as many to choose by, passes over them, trials
    of ours and of the peer's, whose trials all cost the same: each starts everything anew."""

    what: str
    rows: int
    epochs: int
    ours: int
    theirs: int

    @property
    def steps(self) -> int:
        return self.epochs * -(-self.rows // BATCH)


def experiment(
    data: Path,
    steps: int,
    *,
    reports: int = 2,
    rows: int = 200,
    selection: int = 50,
    batch: int = 16,
    precision: str = "fp32",
) -> Any:
    """SST-2 sentences where they are beside the project, else film reviews; every training row a changed copy."""
    from bothways.config import Experiment

    source: dict[str, Any] = {"source": "asset:rotten_tomatoes"}
    if (data / "sst2").exists():
        source = {"source": str(data / "sst2" / "train.tsv"), "label": 0, "text": 1}
    return Experiment(
        data={**source, "splits": {"train": rows, "selection": selection, "test": 1}},
        input={"augment": {"n_aug": 1, "keep_original": False, "policy": [["random_deletion"]]}},
        optim={"steps": steps, "batch_size": batch, "evaluate_every": -(-steps // reports), "precision": precision},
    )


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A cluster of this process' own, as `bothways tune` starts it."""
    from bothways.cli.tune import quiet_ray

    quiet_ray()
    import ray

    from bothways.config import Run
    from bothways.edges.ray_cluster import start_ray

    start_ray(Run())
    try:
        yield
    finally:
        ray.shutdown()


def search(base: Any, trials: int) -> tuple[float, list[Any], float]:
    """Seconds of a search whose trials are all trained to the end, its events, and what MLflow cost the processor."""
    import ray

    from bothways import data as loading
    from bothways import spaces
    from bothways.config import Pipeline, Run, Search
    from bothways.config.goals import Goals
    from bothways.edges.mlflow_tracking import MlflowTracker
    from bothways.edges.ray_cluster import start_hub
    from bothways.edges.ray_train import Lanes
    from bothways.edges.ray_tune import run_search
    from bothways.edges.record import Pump, Record

    dataset, events = loading.load(base.data), list[Any]()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "space.yaml").write_text(SPACE)
        pipeline = Pipeline(name="bench", experiment=base, run=Run(storage=folder))
        began = time.monotonic()
        hub = start_hub(3)
        tracker = MlflowTracker(pipeline, directory, dataset, "bench").__enter__()
        record = Record(directory / "events.jsonl")
        pump = Pump(hub, [record, tracker, events.append], 600.0, sys.stderr.write)
        pump.start()
        with Lanes(hub, ray.put(dataset), Run(lanes=LANES), directory) as lanes:
            run_search(
                Search(space="space.yaml", trials=trials, grace_steps=base.optim.steps),
                spaces.load_space(directory / "space.yaml"),
                base,
                hub=hub,
                directory=directory,
                lanes=lanes,
                goals=Goals(metric="selection/accuracy", mode="max"),
            )
        seconds = time.monotonic() - began
        pump.drain()
        tracker.__exit__(None, None, None)
    ends = [e.outcome for e in events if e.outcome]
    assert [o.status for o in ends] == ["finished"] * trials, ends
    assert not tracker.problems, tracker.problems
    return seconds, events, tracker.cpu_s


def starts(events: list[Any]) -> list[float]:
    """Seconds to the first step of every trial but each lane's first."""
    seen: set[int] = set()
    warm = []
    for event in events:
        if event.kind == "begin":
            if event.lane in seen:
                warm.append(event.trial_id)
            seen.add(event.lane)
    reports = [(e.trial_id, e.report.metrics) for e in events if e.report]
    first = {name: metrics["time/start_s"] for name, metrics in reports if "time/start_s" in metrics}
    return [first[name] for name in warm]


def training_seconds(events: list[Any]) -> float:
    """What all optimiser steps and evaluations took, by the trials' own clocks."""
    total, before = 0.0, {}
    for event in events:
        if event.report:
            metrics = event.report.metrics
            tokens = metrics["cost/tokens"] - before.get(event.trial_id, 0.0)
            before[event.trial_id] = metrics["cost/tokens"]
            total += tokens / metrics["time/tokens_per_s"] + metrics["time/evaluation_s"]
    return total


def start_row(data: Path, chosen: argparse.Namespace) -> None:
    with ray_cluster():
        _, events, _ = search(experiment(data, steps=4, reports=1), trials=32 + LANES)
    found = sorted(starts(events))
    for what, ours, limit in (("median", statistics.median(found), 0.5), ("p95", found[int(0.95 * len(found))], 1.0)):
        row(what=f"start of a warm trial, {what}", ours=ours, limit=limit, unit="s", trials=len(found))


def sweep_row(data: Path, chosen: argparse.Namespace) -> None:
    trials, began = 16, time.time()
    base = experiment(data, steps=chosen.steps)
    with ray_cluster():
        _, events, logging = search(base, trials)
    ideal = training_seconds(events) / LANES
    first, last = (f(e.at for e in events if e.kind == kind) for f, kind in ((min, "begin"), (max, "end")))
    each = ideal * LANES / trials
    for what, since in (("from the first begin", first), ("with Ray and lanes started", began)):
        ratio = (last - since) / ideal
        row(
            what=f"sweep of {trials} trials, {what}",
            **{"ours": last - since, "ideal": ideal, "ratio": ratio, "limit": 1.3, "unit": "s", "trial_s": each},
        )
    row(
        what="MLflow in that sweep",
        ours=logging,
        peer=ideal * LANES,
        ratio=logging / ideal / LANES,
        limit=0.01,
        unit="s",
    )


def overhead_row(data: Path, chosen: argparse.Namespace) -> None:
    """A trial of about 10 s, three times in turns; the best of each. Both train one model on the same batches."""
    import torch
    from torch.nn import functional

    from bothways import data as loading
    from bothways.config import Run
    from bothways.edges import local
    from bothways.training.optimizer import Optimizer
    from bothways.training.trial import Trial
    from bothways.training.workspace import Workspace

    base = experiment(data, steps=2 * chosen.steps)
    dataset, workspace = loading.load(base.data), Workspace()
    torch.set_num_threads(1)

    def platform(folder: Path) -> None:
        result = local.run(base, Run(), trial_id="x", directory=folder, dataset=dataset, workspace=workspace)
        assert result.status == "finished"

    def prepared(folder: Path) -> tuple[Any, list[Any], list[Any]]:
        how = {"collective": local.OneWorker(), "execute": local.execute, "workspace": workspace, "directory": folder}
        trial = Trial(base, dataset, **how)
        batches, selection = list(trial._batches(0)), trial._evaluation_batches("selection")[0]
        return workspace.model(base.model.source, dataset.labels).module, batches, selection

    def bare(module: Any, batches: list[Any], selection: list[Any]) -> None:
        with base.output.trainable(module) as moves:
            optimiser = Optimizer(module, base.optim, local.OneWorker(), moves)
            steps(optimiser, module, batches, selection)

    def steps(optimiser: Optimizer, module: Any, batches: list[Any], selection: list[Any]) -> None:
        with optimiser.in_place():
            module.train()
            for step, batch in enumerate(batches):
                functional.cross_entropy(module(**batch.inputs).logits, batch.labels).backward()
                optimiser.step(step)
                if (step + 1) % base.optim.evaluate_every == 0 or step + 1 == base.optim.steps:
                    module.eval()
                    with torch.no_grad():
                        for rows in selection:
                            module(**rows.inputs).logits.argmax(dim=1)
                    module.train()

    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        platform(Path(folder) / "warm")
        for turn in range(3):
            began = time.process_time()
            platform(Path(folder) / f"ours-{turn}")
            ours.append(time.process_time() - began)
            given = prepared(Path(folder) / f"bare-{turn}")
            began = time.process_time()
            bare(*given)
            theirs.append(time.process_time() - began)
    ratio = min(ours) / min(theirs)
    row(
        what=f"platform over the bare loop, {base.optim.steps} steps",
        ours=min(ours),
        peer=min(theirs),
        ratio=ratio,
        limit=1.1,
        unit="CPU s",
    )


def search_row(data: Path, chosen: argparse.Namespace) -> None:
    if not chosen.peer.exists() or not (data / "sst2").exists():
        return row(what="search", skipped=f"{chosen.peer} or {data} is not there")
    many, few = chosen.trials, 4
    for size in (Size("search", 200, 3, many, few), Size("search of short trials", 64, 1, 2 * many, few)):
        how = {"rows": size.rows, "selection": size.rows, "batch": BATCH, "precision": chosen.precision}
        base = experiment(data, size.steps, reports=size.epochs, **how)
        with ray_cluster():
            seconds, events, _ = search(base, size.ours)
        best = max(e.report.metrics["selection/accuracy"] for e in events if e.report)
        peer = recipe(size, data, chosen.peer)
        ours, theirs = 3600 * size.ours / seconds, 3600 * size.theirs / peer["wall_s"]
        row(
            what=f"{size.what}, {size.steps} steps a trial",
            **{"ours": ours, "peer": theirs, "ratio": ours / theirs, "limit": 10, "unit": "trials/h"},
            seconds={"ours": seconds, "peer": peer["wall_s"]},
            trials={"ours": size.ours, "peer": size.theirs},
            best={"ours": best, "peer": peer["best"]},
            precision=chosen.precision,
        )


def recipe(size: Size, data: Path, peer: Path) -> dict[str, Any]:
    """Seconds and the best score of the peer's sweep."""
    from bothways.assets import resolve

    command = [sys.executable, str(peer), "--model", str(resolve("asset:minilm-l6"))]
    command += ["--train", str(data / "sst2" / "train.tsv"), "--test", str(data / "sst2" / "test.tsv")]
    command += ["--rows", str(size.rows), "--dev-rows", str(size.rows), "--trials", str(size.theirs)]
    command += ["--epochs", str(size.epochs), "--concurrent", str(LANES), "--cpus", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=True)
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert line["steps"] == size.theirs * size.steps, line
    return {"wall_s": line["wall_s"], "best": line["best_dev_accuracy"]}


ROWS = {"start": start_row, "sweep": sweep_row, "overhead": overhead_row, "search": search_row}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all of them when none is named")
    options.add_argument("--trials", type=int, default=32, help="of ours, beside four of the peer's")
    options.add_argument("--precision", default="auto", help="of ours beside the peer's; fp32, bf16 or auto")
    options.add_argument("--steps", type=int, default=10, help="of a trial; 10 take about 5 s")
    options.add_argument("--peer", type=Path, default=SHARED / "peers" / "plain_ray_recipe.py")
    options.add_argument("--data", type=Path, default=SHARED / "data")
    chosen = options.parse_args()
    for name in chosen.rows or ROWS:
        ROWS[name](chosen.data, chosen)


if __name__ == "__main__":
    main()
