"""What the methods of `joint/` are worth: accuracy on test rows, each beside the arm that it has to beat.

Four settings on film reviews (the asset rotten_tomatoes), in each of which all arms see the same labelled rows, number
of steps and rows of a step:
- `noise`: 300 labelled rows of which a fifth have the wrong label, and 60 others whose labels are right. `plain` learns
  from the 300; `plain, with the clean rows` also reads those 60 among them; `learn_to_reweight` judges by them.
- `few`: 100 labelled rows, and 2,000 without labels. `cycle_consistency` writes rows again from a changed copy of them.
- `weights`: the same 100 labelled rows and two terms, cross-entropy and R-Drop. `plain` is their weighted sum.
- `scales`: the same rows, and news whose topics are another task (the asset reuters_r8), which counts 30 times as much.

A seed draws the labelled rows, which of them are turned, the head and the order; a difference is paired by seed and by
test row, with its 95 % interval. Knobs are the methods' defaults: nothing is tuned. Test labels are never turned.
`--table` keeps what is trained, so that a second run only goes on.
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
from domain import trained

from bothways import analysis, assets, data
from bothways.config import Experiment
from bothways.training.workspace import Workspace

NAMES = {"fresh": "positive", "rotten": "negative"}
TURNED = {"positive": "negative", "negative": "positive"}
CHANGES = {"policy": [[{"name": "synonym_replacement", "p": 0.2}], [{"name": "random_deletion", "p": 0.1}]]}
NOISE = 0.2
TRAIN, CLEAN, FEW = 300, 60, 100


def objective(name: str, **knobs: Any) -> dict[str, Any]:
    return {"output": {"objectives": [{"name": name, **knobs}]}}


def weighed(**other: Any) -> dict[str, dict[str, Any]]:
    """Cross-entropy and another term under each way to weigh them."""
    two = ["cross_entropy", other]
    arms = {"plain": "weighted_sum", "uncertainty": "uncertainty", "gradnorm": "gradnorm"}
    return {arm: {"output": {"objectives": two, "weighting": {"name": name}}} for arm, name in arms.items()}


BACK = {**objective("cycle_consistency"), "input": {"augment": CHANGES}}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "noise": {
        "plain": {},
        "plain, with the clean rows": {},
        "learn_to_reweight": objective("learn_to_reweight", rows="clean"),
        "learn_to_reweight, head": objective("learn_to_reweight", rows="clean", layers="head"),
    },
    "few": {
        "plain": {},
        "cycle_consistency": BACK,
        "cycle_consistency, unlabelled": {**BACK, **objective("cycle_consistency", rows="unlabelled")},
    },
    "weights": weighed(name="rdrop", weight=1.0),
    "scales": weighed(name="multitask", strength=30.0),
}


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    pq.write_table(pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]}), path)
    return str(path)


def sources(folder: Path, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """The data of each setting and arm for a seed, as files; the test rows are those of every seed."""
    films = assets.asset("rotten_tomatoes")
    found = films.read(assets.resolve(f"asset:{films.name}"))["train"]  # type: ignore[misc]
    order = np.random.default_rng(0).permutation(len(found))
    named = [(found[at][0], NAMES[str(found[at][1])]) for at in order]
    test, rest = write(folder / "test.parquet", named[:1000]), named[1000:]
    draw = np.random.default_rng(1 + seed)
    drawn = draw.permutation(len(rest))
    clean = [rest[at] for at in drawn[:CLEAN]]
    train = [rest[at] for at in drawn[CLEAN : CLEAN + TRAIN]]
    unlabelled = [rest[at] for at in drawn[CLEAN + TRAIN : CLEAN + TRAIN + 2000]]
    wrong = draw.permutation(TRAIN) < NOISE * TRAIN
    noisy = [(text, TURNED[label] if turn else label) for (text, label), turn in zip(train, wrong, strict=True)]
    # Nothing is chosen by the selection rows; each source has to have some.
    spare = write(folder / "spare.parquet", [rest[at] for at in drawn[-50:]])
    common = {"test_source": test, "selection_source": spare, "splits": {"selection": 0.99, "test": 0.99}}
    judged = {**common, "source": write(folder / "noisy.parquet", noisy)}
    few = {
        **common,
        "source": write(folder / "few.parquet", train[:FEW]),
        "unlabelled_source": write(folder / "unlabelled.parquet", unlabelled),
    }
    by_clean = {**judged, "clean_source": write(folder / "clean.parquet", clean)}
    both = {**common, "source": write(folder / "both.parquet", [*noisy, *clean])}
    arms = {arm: by_clean if "reweight" in arm else both if "clean" in arm else judged for arm in SETTINGS["noise"]}
    heavy = {**few, "tasks": [{"source": "asset:reuters_r8"}]}
    return {
        "noise": arms,
        **{name: dict.fromkeys(SETTINGS[name], few) for name in ("few", "weights")},
        "scales": dict.fromkeys(SETTINGS["scales"], heavy),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    options.add_argument("--arms", nargs="+", help="those only, and plain")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=150)
    options.add_argument("--length", type=int, default=48, help="tokens of a text")
    options.add_argument("--model", default="asset:minilm-l6")
    options.add_argument("--table", type=Path)
    options.add_argument("--replay", action="store_true", help="train nothing: what the table has of every arm")
    chosen = options.parse_args()
    torch.set_num_threads(1)

    known: dict[str, dict[str, Any]] = {}
    if chosen.table and chosen.table.exists():
        known = {line["key"]: line for line in map(json.loads, chosen.table.read_text().splitlines())}
    for seed in range(0 if chosen.replay else chosen.seeds):
        workspace = Workspace()
        with tempfile.TemporaryDirectory() as folder:
            described = sources(Path(folder), seed)
            for setting, arm in every(chosen):
                key = named(chosen, setting, arm, seed)
                if key in known:
                    continue
                experiment = Experiment(
                    seed=seed,
                    data={**described[setting][arm], "split_seed": seed},
                    model={"source": chosen.model, "max_length": chosen.length},
                    optim={
                        **{"steps": chosen.steps, "evaluate_every": chosen.steps, "batch_size": 16},
                        **{"lr": 1e-4, "head_lr": 1e-3},
                    },
                    **SETTINGS[setting][arm],
                )
                began = time.monotonic()
                hits = "".join("01"[hit] for hit in trained(experiment, workspace, data.load(experiment.data)))
                known[key] = {"key": key, "seconds": round(time.monotonic() - began, 1), "hits": hits}
                if chosen.table:
                    with chosen.table.open("a") as opened:
                        opened.write(json.dumps(known[key]) + "\n")
    show(known, chosen)


def every(chosen: argparse.Namespace) -> list[tuple[str, str]]:
    """The settings and arms that were asked for."""
    arms = None if chosen.arms is None else {"plain", *chosen.arms}
    return [(setting, arm) for setting in chosen.settings for arm in SETTINGS[setting] if arms is None or arm in arms]


def named(chosen: argparse.Namespace, setting: str, arm: str, seed: int) -> str:
    """The key of a training in the table."""
    knobs = json.dumps(SETTINGS[setting][arm], sort_keys=True)
    return f"{chosen.model} {setting} {arm} {seed} {chosen.steps} {chosen.length} {knobs}"


def show(known: dict[str, dict[str, Any]], chosen: argparse.Namespace) -> None:
    """A line for each arm, over the seeds that it and plain have both been trained with."""
    for setting, arm in every(chosen):
        keys = [[named(chosen, setting, one, seed) for one in (arm, "plain")] for seed in range(chosen.seeds)]
        both = [[known[key] for key in pair] for pair in keys if all(key in known for key in pair)]
        if not both:
            continue
        hits, plain = (np.array([[bit == "1" for bit in pair[side]["hits"]] for pair in both]) for side in (0, 1))
        gain = analysis.difference(hits, plain)
        measuring.row(
            what=f"accuracy on test rows, {setting}: {arm}",
            accuracy=float(hits.mean()),
            plain=float(plain.mean()),
            gain=gain.mean,
            low=gain.low,
            high=gain.high,
            by_seed=[round(float(value), 3) for value in (hits.mean(axis=1) - plain.mean(axis=1))],
            seconds=float(np.mean([pair[0]["seconds"] for pair in both])),
            seeds=len(both),
            rows=hits.shape[1],
            steps=chosen.steps,
            length=chosen.length,
            model=chosen.model,
        )


if __name__ == "__main__":
    main()
