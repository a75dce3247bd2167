"""Every classification objective beside plain cross-entropy, with few labels: what it gains and what it costs.

    python tests/benchmarks/objectives.py [--seeds 5] [--steps 40] [--rows 100] [--keep DIR]

MiniLM-L6 on SST-2 sentences (on the asset rotten_tomatoes where they are not beside the project), each arm at the
defaults of its method. For each seed all arms start from the same head and see the same rows in the same order. A gain
is in points of accuracy on the same test rows, paired by seed and row, with its 95 % interval: at equal steps, and once
against cross-entropy with as many steps as the arm's declared passes would have paid for. The teacher of `distillation`
is cross-entropy on the same rows from another seed; `consistency` reads the source's other sentences without labels.

Cost: processor seconds of a few steps, and peak memory above what is held between them, as ratios to cross-entropy's,
beside the declared passes (a backward pass counts as two). Results are kept in DIR, so that a second run goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import row

from bothways import analysis, data, training
from bothways.config import Experiment, OutputSide
from bothways.edges.local import OneWorker, execute
from bothways.training.answers import Speaker
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

SST2 = Path(__file__).parents[3] / "shared" / "data" / "sst2" / "train.tsv"
CONTROL = "cross_entropy"
ARMS: Mapping[str, Mapping[str, Any]] = {
    "label_smoothing": {},
    "focal": {},
    "margin": {},
    "supervised_contrastive": {},
    "mixup": {},
    "mixup at layer 3": {"layer": 3},
    "rdrop": {},
    "consistency": {},
    "distillation": {},
    "adversarial fgm": {},
    "adversarial pgd": {"method": "pgd", "steps": 2},
    "adversarial freelb": {"method": "freelb"},
    "adversarial smart": {"method": "smart"},
    "adversarial vat": {"method": "vat"},
    "policy_gradient group_relative": {},
    "policy_gradient self_critical": {"method": "self_critical", "draws": 1, "kl": 0.0},
}
CHANGE = {"policy": [[{"name": "random_deletion", "p": 0.1}]]}
"""What `consistency` reads a second time; no arm trains on changed copies."""
TEACHER_SEED = 999


@dataclass
class Bench:
    """One process's model and data. `kept`: which test rows an experiment got right. `costs`: of each arm."""

    base: Experiment
    folder: Path

    def __post_init__(self) -> None:
        self.dataset = data.load(self.base.data)
        self.workspace = Workspace()
        self.file = self.folder / "results.jsonl"
        lines = self.file.read_text("utf-8").splitlines() if self.file.exists() else []
        self.kept: dict[str, dict[str, Any]] = {one["experiment"]: one for one in map(json.loads, lines)}
        self.costs_file = self.folder / "costs.json"
        self.costs: dict[str, tuple[float, float]] = (
            json.loads(self.costs_file.read_text("utf-8")) if self.costs_file.exists() else {}
        )
        self.teacher = self.folder / "teacher"
        if not (self.teacher / "model.json").exists():
            with self.trained(self.base.model_copy(update={"seed": TEACHER_SEED})) as trial:
                trial.save().rename(self.teacher)

    def trial(self, experiment: Experiment, directory: Path) -> Trial:
        return Trial(
            experiment,
            self.dataset,
            collective=OneWorker(),
            execute=execute,
            workspace=self.workspace,
            directory=directory,
        )

    @contextmanager
    def trained(self, experiment: Experiment) -> Iterator[Trial]:
        with tempfile.TemporaryDirectory(dir=self.folder) as directory:
            trial = self.trial(experiment, Path(directory))
            for _ in trial.reports():
                pass
            yield trial

    def of(self, arm: str, seed: int = 0, steps: int | None = None) -> Experiment:
        """The experiment of an arm."""
        steps = steps or self.base.optim.steps
        objective = {"name": arm.split()[0], **ARMS.get(arm, {})}
        if arm == "distillation":
            objective["teachers"] = [str(self.teacher)]
        optim = self.base.optim.model_copy(update={"steps": steps, "evaluate_every": steps})
        output = OutputSide(objectives=[objective])
        return self.base.model_copy(update={"seed": seed, "output": output, "optim": optim})

    def hits(self, experiment: Experiment) -> list[bool]:
        """Which test rows the trained experiment gets right."""
        found = self.kept.get(experiment.digest)
        if found is None:
            with self.trained(experiment) as trial:
                hits = "".join("01"[round(hit)] for hit in trial.score_test().hits)
            found = {"experiment": experiment.digest, "hits": hits}
            self.kept[experiment.digest] = found
            with self.file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps(found) + "\n")
        return [hit == "1" for hit in found["hits"]]

    def cost(self, arm: str) -> tuple[float, float]:
        """`measured`, once."""
        if arm not in self.costs:
            self.costs[arm] = self.measured(arm)
            self.costs_file.write_text(json.dumps(self.costs), "utf-8")
        return self.costs[arm]

    def measured(self, arm: str, steps: int = 5) -> tuple[float, float]:
        """Processor seconds of a step, and MiB of memory at its height above what is held between steps."""
        experiment = self.of(arm, steps=steps + 2)
        trial = self.trial(experiment, self.folder / "none")
        batches = trial._batches(0)  # all is read before the clock starts, but teachers teach after it
        ready = [replace(next(batches), taught={}) for _ in range(steps + 2)]
        bundle = self.workspace.model(experiment.model.source, self.dataset.labels)
        taken: list[float] = []
        held: list[float] = []

        def timed(start: int) -> Iterator[Any]:
            for number, batch in enumerate(ready[start:]):
                if number == 1:
                    _let_go()
                    held.append(_memory("VmRSS"))
                    taken.append(time.process_time())
                yield trial._taught(batch)
                if number == steps:
                    taken.append(time.process_time())

        for _ in training.train(
            bundle.module,
            task=experiment.task,
            output=experiment.output,
            optim=experiment.optim,
            seed=0,
            rows=training.Rows(timed, ready[:1]),
            collective=OneWorker(),
            speaker=Speaker(experiment.task, bundle, trial._dataset.labels, Workspace()),
        ):
            pass
        return (taken[1] - taken[0]) / steps, _memory("VmHWM") - held[0]


def _let_go() -> None:
    """Give freed memory back, and let the peak begin again from what is held. Linux."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> float:
    """MiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def base(chosen: argparse.Namespace) -> Experiment:
    source: dict[str, Any] = {"source": "asset:rotten_tomatoes"}
    if SST2.exists():
        source = {"source": str(SST2), "label": 0, "text": 1}
    optim = {"steps": chosen.steps, "batch_size": chosen.batch, "lr": 2e-4, "head_lr": 2e-3}
    return Experiment(
        data={**source, "splits": {"train": chosen.rows, "selection": 2, "test": chosen.test}},
        model={"max_length": 32},
        input={"augment": CHANGE},
        optim={**optim, "evaluate_every": chosen.steps},
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--rows", type=int, default=100, help="labelled ones to learn from")
    options.add_argument("--test", type=int, default=500, help="rows to judge by")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--keep", type=Path, help="folder of the results; default: gone afterwards")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as gone:
        folder = chosen.keep or Path(gone)
        folder.mkdir(parents=True, exist_ok=True)
        report(Bench(base(chosen), folder), chosen.seeds)


def report(bench: Bench, seeds: int) -> None:
    """Trains what is not kept yet, all arms of a seed before the next seed, then prints a line for each arm."""
    steps = bench.base.optim.steps
    passes = {arm: bench.of(arm).output.for_classes([1, 1]).terms[0].objective.passes for arm in (CONTROL, *ARMS)}
    paid = {arm: round(steps * (forward + 2 * backward) / 3) for arm, (forward, backward) in passes.items()}
    costs = {arm: bench.cost(arm) for arm in (CONTROL, *ARMS)}
    found: dict[tuple[str, int], list[list[bool]]] = {}
    planned = {(CONTROL, steps), *((arm, steps) for arm in ARMS), *((CONTROL, paid[arm]) for arm in ARMS)}
    for seed in range(seeds):
        for arm, budget in sorted(planned, key=lambda one: (paid[one[0]] * one[1], one)):  # the cheap ones first
            found.setdefault((arm, budget), []).append(bench.hits(bench.of(arm, seed, budget)))
    hits = {key: np.array(value) for key, value in found.items()}
    for arm in (CONTROL, *ARMS):
        forward, backward = passes[arm]
        row(
            what=arm,
            unit="accuracy",
            ours=float(hits[arm, steps].mean()),
            theirs=float(hits[CONTROL, steps].mean()),
            gain=str(analysis.difference(hits[arm, steps], hits[CONTROL, steps])),
            gain_at_equal_passes=str(analysis.difference(hits[arm, steps], hits[CONTROL, paid[arm]])),
            passes=f"{forward} + {backward}",
            declared_cost=(forward + 2 * backward) / 3,
            seconds_ratio=costs[arm][0] / costs[CONTROL][0],
            memory_ratio=costs[arm][1] / costs[CONTROL][1],
            seeds=seeds,
            steps=steps,
        )


if __name__ == "__main__":
    main()
