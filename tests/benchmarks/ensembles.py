"""What can be made of a finished sweep's models: soups, an ensemble, and one model that the ensemble has taught.

    python tests/benchmarks/ensembles.py runs/sentiment-001 [--k 5] [--seeds 3] [--keep DIR]

A line for the single best model by the selection rows, for the uniform and the greedy soup and the ensemble of the
`--k` best (see `bothways ensemble`), with the score on selection and on test rows and the difference to the single best
in accuracy on the test rows, with its 95 % interval, paired by row. Then two trainings with `--seeds` fresh seeds, on
the sweep's data, with the steps, the rates and the input side of the single best's experiment: `again`, that experiment
itself, and `distilled`, with `distillation` from the members of the ensemble as its objective. Their difference, paired
by seed and by row, is what the teaching is worth: the single best has been chosen among many, `again` has not.

Only trials whose models were saved, those that have finished, count. DIR keeps what is made: a second run goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch

from bothways import analysis, data, ensembles, models
from bothways.analysis import Hits
from bothways.config import Experiment
from bothways.edges.local import OneWorker, execute
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

FRESH = 3000
"""What is added to the experiment's seed: no search, confirmation or comparison has used it."""


@dataclass
class Bench:
    """A sweep's models, its data, and `kept`: the scores of what was made of them."""

    trials: Mapping[str, Path]
    metric: str
    k: int
    folder: Path
    workspace: Workspace = field(default_factory=Workspace)

    def __post_init__(self) -> None:
        self.experiment = models.read_about(next(iter(self.trials.values()))).experiment
        self.task = self.experiment.task
        self.metric = self.metric or self.task.ranking[0]
        self.dataset = data.load(self.experiment.data, task=self.task)
        self.rows = {
            split: ensembles.Rows(self.task, getattr(self.dataset, split), self.metric)
            for split in ("selection", "test")
        }
        self.file = self.folder / "ensembles.json"
        self.kept: dict[str, dict[str, Any]] = json.loads(self.file.read_text("utf-8")) if self.file.exists() else {}

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        key = json.dumps([name, self.k, self.metric, sorted(str(path.resolve()) for path in self.trials.values())])
        if key not in self.kept:
            self.kept[key] = make()
            self.file.write_text(json.dumps(self.kept), "utf-8")
        return self.kept[key]

    def scored(self, by: Any) -> dict[str, Any]:
        """Of a model, or of several as one: the metrics of each split, and which test rows are right."""
        said = {split: rows.said(by) for split, rows in self.rows.items()}
        right = said["test"].argmax(axis=1) == self.dataset.test["label"].to_numpy()
        return {
            **{split: rows.metrics(said[split]) for split, rows in self.rows.items()},
            "hits": "".join("01"[bool(hit)] for hit in right),
        }

    def made(self, method: ensembles.Method) -> dict[str, Any]:
        """A soup or an ensemble of the best trials; all of them, best first, are its `candidates`."""

        def make() -> dict[str, Any]:
            best = self.best if method != "top-k" else tuple(self.trials)
            with tempfile.TemporaryDirectory(dir=self.folder) as gone:
                found = ensembles.make(
                    {name: self.trials[name] for name in best},
                    load=lambda _: self.dataset,
                    method=method,
                    k=self.k,
                    metric=self.metric,
                    out=Path(gone) / "made",
                )
                scores = self.scored(ensembles.predictor(found.directory))
            return {**scores, "members": found.members, "candidates": [one.name for one in found.candidates]}

        return self.once(method, make)

    @property
    def best(self) -> tuple[str, ...]:
        """The names of the best trials, best first."""
        return tuple(self.made("top-k")["members"])

    def single(self) -> dict[str, Any]:
        name = self.best[0]
        return self.once("single", lambda: {**self.scored(ensembles.predictor(self.trials[name])), "members": [name]})

    def trained(self, arm: str, seed: int) -> dict[str, Any]:
        """The experiment of the single best with another seed, as it is (`again`) or taught (`distilled`)."""
        about = models.read_about(self.trials[self.best[0]]).experiment
        changes: dict[str, Any] = {
            "seed": about.seed + FRESH + seed,
            "optim": about.optim.model_copy(update={"patience": None}),
        }
        if arm == "distilled":
            taught = {"name": "distillation", "teachers": [str(self.trials[name]) for name in self.best]}
            changes["output"] = type(about.output)(objectives=[taught], trainable=about.output.trainable)
        return self.once(f"{arm} {seed}", lambda: self._trained(about.model_copy(update=changes)))

    def _trained(self, experiment: Experiment) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=self.folder) as gone:
            trial = Trial(
                experiment,
                self.dataset,
                collective=OneWorker(),
                execute=execute,
                workspace=self.workspace,
                directory=Path(gone),
            )
            for _ in trial.reports():
                pass
            return {**self.scored(ensembles.predictor(trial.save())), "members": []}


def hits(*found: Mapping[str, Any]) -> Hits:
    return np.array([[hit == "1" for hit in one["hits"]] for one in found], np.float64)


def report(bench: Bench, seeds: int) -> None:
    single = bench.single()

    def line(what: str, found: list[dict[str, Any]], **more: Any) -> None:
        gain = analysis.difference(hits(*found), hits(single).repeat(len(found), axis=0))
        scores = {
            f"{split}_{name}": float(np.mean([one[split][name] for one in found]))
            for split in ("selection", "test")
            for name in dict.fromkeys((bench.metric, "accuracy", *bench.task.ranking))
        }
        measuring.row(
            what=f"of {len(bench.trials)} trials' models: {what}",
            unit="accuracy on test rows",
            ours=float(hits(*found).mean()),
            theirs=float(hits(single).mean()),
            gain=str(gain),
            **more,
            **scores,
            members=found[0]["members"],
            rows=bench.dataset.test.num_rows,
        )

    line("single best", [single])
    for method in ("uniform", "greedy", "top-k"):
        line(f"{method} of {bench.k}", [bench.made(method)])  # type: ignore[arg-type]
    arms = {arm: [bench.trained(arm, seed) for seed in range(seeds)] for arm in ("again", "distilled")}
    for arm, found in arms.items():
        line(arm, found, gain_to_again=str(analysis.difference(hits(*found), hits(*arms["again"]))), seeds=seeds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run_dir", nargs="?", type=Path, help="of a finished sweep, such as runs/sentiment-001")
    options.add_argument("--trials", default="[0-9]*")
    options.add_argument("--metric", default="", help="ranks the models; default: what the task ranks by first")
    options.add_argument("--k", type=int, default=5)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--keep", type=Path, help="folder of the results; default: gone afterwards")
    chosen = options.parse_args()
    if chosen.run_dir is None:
        measuring.row(what="ensembles", skipped="needs the directory of a finished sweep: see `bothways tune`")
        return
    trials = {
        one.parents[1].name: one.parent
        for one in sorted(chosen.run_dir.glob(f"trials/{chosen.trials}/model/model.json"))
    }
    if not trials:
        options.error(f"{chosen.run_dir}: no saved model in trials/{chosen.trials}/model")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as gone:
        folder = chosen.keep or Path(gone)
        folder.mkdir(parents=True, exist_ok=True)
        report(Bench(trials, chosen.metric, chosen.k, folder), max(1, chosen.seeds))


if __name__ == "__main__":
    main()
