"""What a search costs in optimiser steps, and what it finds: every trial to its end, against stopping the hopeless.

Both sides search the same space with the same sampler, data and seeds, one trial at a time, through the same proposals
(`PointSearch`) and the scheduler that `bothways tune` uses (`SparingASHA`, with its defaults); only one side listens to
it, and has fewer trials: a fifth of the steps is better spent on looking longer at fewer. The winner of each, the one
with the best last look at the selection rows, and the control are then trained again with fresh seeds, and scored on
test rows that no search has seen. Counted are all steps of a search, also those of stopped trials; the last trainings,
the same on all sides, are not.

A training is a function of its experiment, so both sides read it from one table: an experiment that both of them
propose is trained once, and its prefix up to a stop is what a stopped training would have reported. `--table` keeps the
table, so that a second run only replays.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measuring
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from bothways import analysis, data, spaces
from bothways.assets import resolve
from bothways.config import Experiment, Search
from bothways.config.goals import Goals
from bothways.edges.local import OneWorker, execute
from bothways.edges.ray_tune import PointSearch, sampler, scheduler
from bothways.training.trial import Diverged, Trial
from bothways.training.workspace import Workspace

SPACE = Path(__file__).parents[2] / "search_spaces" / "joint.yaml"
MORE = """
optim.lr: {log: [1e-5, 1e-3]}
optim.head_lr: {log: [1e-4, 1e-2]}
output.trainable.name: [full, head]
"""
"""Knobs beside those of the joint space, some settings of which are bad: a search has to find out which."""
GOALS = Goals(metric="selection/log_loss", mode="min")
METRIC = GOALS.metric
LIMIT = 1 / 5


def encoder(layers: int) -> str:
    """The directory of MiniLM-L6 with its first `layers` layers only."""
    folder = Path(tempfile.gettempdir()) / f"bothways-minilm-l{layers}"
    if not (folder / "config.json").exists():
        whole = resolve("asset:minilm-l6")
        model = AutoModel.from_pretrained(whole)
        model.encoder.layer = model.encoder.layer[:layers]
        model.config.num_hidden_layers = layers
        AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
        model.save_pretrained(folder)
    return str(folder)


def base(steps: int, layers: int) -> Experiment:
    """300 newswire stories to learn from, 96 to choose by, 1,000 to judge by; a look every 16th part of the steps."""
    return Experiment(
        data={"source": "asset:reuters_r8", "splits": {"train": 300, "selection": 96, "test": 1000}},
        model={"source": encoder(layers), "max_length": 32},
        optim={"steps": steps, "batch_size": 8, "lr": 2e-4, "head_lr": 2e-3, "evaluate_every": max(1, steps // 16)},
    )


@dataclass
class Table:
    """Experiments with what they reported: step → metrics. `trained`: steps that were really taken, not replayed."""

    file: Path | None
    dataset: data.Dataset
    known: dict[str, list[tuple[int, dict[str, float]]]] = field(default_factory=dict)
    trained: int = 0

    def __post_init__(self) -> None:
        self.workspace = Workspace()
        if self.file and self.file.exists():
            for line in self.file.read_text().splitlines():
                kept = json.loads(line)
                self.known[kept["experiment"]] = [(step, metrics) for step, metrics in kept["reports"]]

    def reports(self, experiment: Experiment) -> Iterator[tuple[int, dict[str, float]]]:
        """The experiment's reports until the caller stops asking; none more when it diverges."""
        found = self.known.get(experiment.digest, [])
        yield from found
        if found and (found[-1][0] == experiment.optim.steps or found[-1][1] == {}):
            return
        with tempfile.TemporaryDirectory() as folder:
            trial = self.trial(experiment, Path(folder))
            try:
                with closing(trial.reports()) as reports:  # type: ignore[type-var]
                    for number, report in enumerate(reports):
                        if number < len(found):
                            continue
                        found = self.known[experiment.digest] = [*found, (report.step, dict(report.metrics))]
                        self.trained += experiment.optim.evaluate_every
                        yield found[-1]
            except Diverged:
                self.known[experiment.digest] = [*found, (found[-1][0] if found else 0, {})]
            finally:
                self.keep(experiment)

    def keep(self, experiment: Experiment) -> None:
        if self.file:
            with self.file.open("a") as opened:
                kept = {"experiment": experiment.digest, "reports": self.known.get(experiment.digest, [])}
                opened.write(json.dumps(kept) + "\n")

    def trial(self, experiment: Experiment, directory: Path) -> Trial:
        return Trial(
            experiment,
            self.dataset,
            collective=OneWorker(),
            execute=execute,
            workspace=self.workspace,
            directory=directory,
        )

    def final(self, experiment: Experiment, seed: int) -> tuple[bool, ...]:
        """Which test rows the experiment, trained to its end with another seed, gets right."""
        optim = experiment.optim.model_copy(update={"evaluate_every": experiment.optim.steps})
        with tempfile.TemporaryDirectory() as folder:
            trial = self.trial(experiment.model_copy(update={"seed": seed, "optim": optim}), Path(folder))
            for _ in trial.reports():
                pass
            return trial.score_test().hits


@dataclass(frozen=True, kw_only=True)
class Found:
    """`steps`: of all trials. `curves`: each trial's experiment and its looks at the selection rows."""

    best: Experiment
    point: Mapping[str, Any]
    score: float
    steps: int
    stopped: int


def search(chosen: Search, space: spaces.Space, what: Experiment, table: Table, *, stops: bool) -> Found:
    """The search of `chosen.trials` trials, one at a time; without `stops` every trial goes to its end."""
    first = space.first_points(what)
    proposals = PointSearch(space, first=first, past=[], goals=GOALS, sampler=sampler(chosen))
    asha = scheduler(chosen, what.optim.steps, GOALS)
    sign = -1
    best: tuple[float, Experiment, Mapping[str, Any]] | None = None
    steps = stopped = 0
    for name in map(str, range(chosen.trials)):
        config = proposals.suggest(name)
        trial = SimpleNamespace(trial_id=name, config=config)
        asha.on_trial_add(None, trial)
        experiment = spaces.apply(what, config["point"])
        result: dict[str, Any] = {}
        last = 0
        with closing(table.reports(experiment)) as reports:  # type: ignore[type-var]
            for step, metrics in reports:
                if not metrics:  # it diverged
                    result = {}
                    break
                last = step
                result = {"step": step, METRIC: metrics[METRIC]}
                proposals.on_trial_result(name, result)
                if stops and asha.on_trial_result(None, trial, result) == asha.STOP and step < what.optim.steps:
                    stopped += 1
                    break
            else:
                result["ended"] = "finished"
        steps += last
        proposals.on_trial_complete(name, result)
        if result and last == what.optim.steps and (best is None or sign * result[METRIC] > best[0]):
            best = (sign * result[METRIC], experiment, config["point"])
    assert best is not None
    return Found(best=best[1], point=best[2], score=sign * best[0], steps=steps, stopped=stopped)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trials", type=int, default=60, help="of the search that stops none")
    options.add_argument("--ours", type=int, default=24, help="trials of the search that stops the hopeless")
    options.add_argument("--steps", type=int, default=48, help="optimiser steps of a trial")
    options.add_argument(
        "--layers", type=int, default=2, help="of MiniLM's six: few, so that 60 full trainings take minutes"
    )
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the searches")
    options.add_argument("--fresh", type=int, default=5, help="seeds with which winners are trained again")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--table", type=Path)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)

    what = base(chosen.steps, chosen.layers)
    table = Table(chosen.table, data.load(what.data))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "space.yaml").write_text(SPACE.read_text() + MORE)
        space = spaces.load_space(Path(folder) / "space.yaml")
    for seed in chosen.seeds:
        settings = Search(space="", metric="log_loss", trials=chosen.trials, seed=seed)
        full = search(settings, space, what, table, stops=False)
        ours = search(settings.model_copy(update={"trials": chosen.ours}), space, what, table, stops=True)
        hits = {}
        for name, experiment in {"control": what, "full": full.best, "ours": ours.best}.items():
            fresh = [1000 + number for number in range(chosen.fresh)]
            hits[name] = np.array([table.final(experiment, number) for number in fresh])
        measuring.row(
            what=f"optimiser steps of a search: {chosen.ours} trials with stops, {chosen.trials} without",
            unit="steps",
            ours=ours.steps,
            peer=full.steps,
            ratio=ours.steps / full.steps,
            limit=LIMIT,
            stopped=ours.stopped,
            search_seed=seed,
            selection={"ours": ours.score, "full": full.score},
            test={name: str(analysis.estimate(found)) for name, found in hits.items()},
            ours_minus_full=str(analysis.difference(hits["ours"], hits["full"])),
            ours_minus_control=str(analysis.difference(hits["ours"], hits["control"])),
            points={"ours": dict(ours.point), "full": dict(full.point)},
        )


if __name__ == "__main__":
    main()
