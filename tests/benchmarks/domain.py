"""What other domains and unlabelled text are worth: accuracy on test rows, each method against plain fine-tuning.

Three settings, in each of which all arms see the same labelled rows, number of steps and labelled rows of a step:
- `adapt`: 200 labelled film reviews, a test on food reviews, and 3,500 food reviews without their labels.
- `mix`: 50 labelled food reviews, a test on food reviews, and labelled film reviews to mix in.
- `few`: 50 labelled film reviews, a test on film reviews, and 2,000 film reviews without their labels; `plain, equal
  passes` is plain with twice the steps, since `gan` reads as many unlabelled rows as labelled ones.

A seed draws the labelled rows, the head and the order; a difference is paired by seed and by test row. Two thirds of
the food reviews are positive, and a model that calls all of them so has learnt nothing: `recall` is the mean over the
classes of the share that is found, 0.5 for such a model. Knobs are the methods' defaults: nothing is tuned. `--table`
keeps what is trained, so that a second run only goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bothways import analysis, assets, data
from bothways.config import Experiment
from bothways.edges.local import OneWorker, execute
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

NAMES = {"fresh": "positive", "rotten": "negative", "great": "positive", "other": "negative"}
CHANGES = {"policy": [[{"name": "synonym_replacement", "p": 0.2}], [{"name": "random_deletion", "p": 0.1}]]}


def objective(name: str, **knobs: Any) -> dict[str, Any]:
    return {"output": {"objectives": [{"name": name, **knobs}]}}


SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "adapt": {
        "plain": {},
        "coral": objective("coral"),
        "mmd": objective("mmd"),
        "dann": objective("dann"),
        "domain_embedding": objective("domain_embedding"),
        "continued_pretraining": {"model": {"prepare": [{"name": "continued_pretraining", "steps": 200}]}},
        "consistency": {**objective("consistency"), "input": {"augment": CHANGES}},
    },
    "mix": {
        "plain": {},
        "sample_mixing": {"input": {"sample_mixing": {"weight": 0.5}}},
        "sample_mixing, domain_classifier": {
            "input": {"sample_mixing": {"weight": 0.5, "weighting": "domain_classifier"}}
        },
    },
    "few": {"plain": {}, "plain, equal passes": {}, "gan": objective("gan")},
}
PASSES = {"plain, equal passes": 2}
"""Times the steps of the others: as many passes as a method's that reads an unlabelled row for each labelled one."""


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """The data of each setting, as files whose labels have the same names."""

    def write(name: str, rows: list[tuple[str, str | None]]) -> str:
        path = folder / f"{name}.parquet"
        columns = {"text": [text for text, _ in rows], "label": [NAMES[str(label)] for _, label in rows]}
        pq.write_table(pa.table(columns), path)
        return str(path)

    films, foods = (
        item.read(assets.resolve(f"asset:{item.name}"))  # type: ignore[misc]
        for item in map(assets.asset, ("rotten_tomatoes", "fine_foods"))
    )
    order = np.random.default_rng(0).permutation(len(films["train"]))
    shuffled = [films["train"][at] for at in order]
    film_test, film_text = write("film_test", shuffled[:1000]), write("film_text", shuffled[1000:3010])
    film, food = write("film", shuffled[3010:]), write("food", foods["train"])
    food_test = write("food_test", foods["test"])
    few = {"train": 50, "selection": 50, "test": 1000}
    return {
        "adapt": {
            "source": film,
            "test_source": food_test,
            "unlabelled_source": food,
            "splits": {**few, "train": 200, "test": 0.99},
        },
        "mix": {"source": food, "test_source": food_test, "mix": [{"source": film}], "splits": {**few, "test": 0.99}},
        "few": {
            "source": film,
            "test_source": film_test,
            "unlabelled_source": film_text,
            "splits": {**few, "test": 0.99},
        },
    }


def trained(experiment: Experiment, workspace: Workspace, dataset: data.Dataset) -> list[bool]:
    """Which test rows the experiment gets right, in the order of their ids."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(
            experiment,
            dataset,
            collective=OneWorker(),
            execute=execute,
            workspace=workspace,
            directory=Path(folder),
        )
        for _ in trial.reports():
            pass
        order = np.argsort(dataset.test["id"].to_numpy(), kind="stable")
        return [bool(hit) for hit in np.array(trial.score_test().hits)[order]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    options.add_argument("--arms", nargs="+", help="those only, and plain")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=150)
    options.add_argument("--length", type=int, default=64, help="tokens of a text")
    options.add_argument("--model", default="asset:minilm-l6")
    options.add_argument("--table", type=Path)
    options.add_argument("--replay", action="store_true", help="train nothing: what the table has of every arm")
    chosen = options.parse_args()
    torch.set_num_threads(1)

    known: dict[str, list[bool]] = {}
    if chosen.table and chosen.table.exists():
        for line in chosen.table.read_text().splitlines():
            kept = json.loads(line)
            known[kept["key"]] = [bit == "1" for bit in kept["hits"]]
    with tempfile.TemporaryDirectory() as folder:
        about, workspace = files(Path(folder)), Workspace()
        for seed in range(chosen.seeds):
            for setting in chosen.settings:
                described = {**about[setting], "split_seed": seed}
                base = {
                    "seed": seed,
                    "data": described,
                    "model": {"source": chosen.model, "max_length": chosen.length},
                }
                dataset = None
                for arm, parts in SETTINGS[setting].items():
                    if chosen.arms and arm not in ("plain", *chosen.arms):
                        continue
                    key = named(chosen, setting, arm, seed)
                    if key in known or chosen.replay:
                        continue
                    steps = chosen.steps * PASSES.get(arm, 1)
                    optim = {"steps": steps, "evaluate_every": steps, "batch_size": 16, "lr": 1e-4, "head_lr": 1e-3}
                    model = base["model"] | parts.get("model", {})
                    experiment = Experiment(**{**base, **parts, "model": model, "optim": optim})
                    dataset = dataset or data.load(experiment.data)
                    began = time.monotonic()
                    known[key] = trained(experiment, workspace, dataset)
                    if chosen.table:
                        with chosen.table.open("a") as opened:
                            hits = "".join("01"[hit] for hit in known[key])
                            spent = round(time.monotonic() - began, 1)
                            opened.write(json.dumps({"key": key, "seconds": spent, "hits": hits}) + "\n")
        classes = {setting: data.load(Experiment(data=about[setting]).data).test for setting in chosen.settings}
    show(known, chosen, classes)


def named(chosen: argparse.Namespace, setting: str, arm: str, seed: int) -> str:
    """The key of a training in the table."""
    knobs = json.dumps(SETTINGS[setting][arm], sort_keys=True)
    return f"{chosen.model} {setting} {arm} {seed} {chosen.steps} {chosen.length} {knobs}"


def recall(hits: Any, test: pa.Table) -> float:
    """The mean over the classes of the share of rows that are right, of hits (S, N) in the order of the ids."""
    labels = test["label"].to_numpy()[np.argsort(test["id"].to_numpy(), kind="stable")]
    return float(np.mean([hits[:, labels == label].mean() for label in np.unique(labels)]))


def show(known: dict[str, list[bool]], chosen: argparse.Namespace, tests: dict[str, pa.Table]) -> None:
    """A line for each arm, over the seeds that it and plain have both been trained with."""
    for setting in chosen.settings:
        arms: dict[str, dict[int, list[bool]]] = {}
        for arm in SETTINGS[setting]:
            keys = {seed: named(chosen, setting, arm, seed) for seed in range(chosen.seeds)}
            arms[arm] = {seed: known[key] for seed, key in keys.items() if key in known}
        for arm, found in arms.items():
            seeds = sorted(set(found) & set(arms["plain"]))
            if not seeds:
                continue
            hits, plain = (np.array([of[seed] for seed in seeds]) for of in (found, arms["plain"]))
            gain = analysis.difference(hits, plain)
            measuring.row(
                what=f"accuracy on test rows, {setting}: {arm}",
                accuracy=float(hits.mean()),
                plain=float(plain.mean()),
                recall=recall(hits, tests[setting]),
                plain_recall=recall(plain, tests[setting]),
                gain=gain.mean,
                low=gain.low,
                high=gain.high,
                by_seed=[round(float(value), 3) for value in (hits.mean(axis=1) - plain.mean(axis=1))],
                seeds=len(seeds),
                rows=hits.shape[1],
                steps=chosen.steps,
                length=chosen.length,
                model=chosen.model,
            )


if __name__ == "__main__":
    main()
