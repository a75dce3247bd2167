"""What deleting words costs a model with few labels, and what protecting words saves of it.

For each corpus and seed 100 labelled rows are drawn; MiniLM is trained on them for the same number of steps, on each
row and `--copies` copies of it, in four arms that differ in the copies only: `plain` (as they are), `blind` (words
deleted, p = 0.15), `protect` (the same, but no negators and numbers), `label_words` (the same, and none of the words
that carry the label, `--share` of the running words). A seed draws the same rows, order and dropout in every arm. Each
arm is held against `plain` and `blind` on the test rows, paired by seed and by row, with a 95 % interval.

    python tests/benchmarks/harm.py [--data FOLDER] [--table FILE]

FOLDER holds `trec` and `sst2`, each with `train.tsv` and `test.tsv` of `label<TAB>text`; a corpus that is missing is
passed over with a line that says so. `--table` keeps what was trained, so that a second run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch

from bothways import analysis, data
from bothways.config import Experiment
from bothways.edges.local import OneWorker, execute
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

DATA = Path(__file__).parents[3] / "shared" / "data"
FREE = {"negators": False, "numbers": False}


def arms(share: float) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name → the transform that makes the copies, and what it must not touch."""
    return {
        "plain": ("identity", FREE),
        "blind": ("random_deletion", FREE),
        "protect": ("random_deletion", {}),
        "label_words": ("random_deletion", {"label_words": share}),
    }


def experiment(folder: Path, seed: int, arm: tuple[str, dict[str, Any]], options: argparse.Namespace) -> Experiment:
    name, protect = arm
    knobs = {} if name == "identity" else {"p": options.p}
    steps = options.steps
    return Experiment(
        seed=seed,
        data={
            "source": str(folder / "train.tsv"),
            "test_source": str(folder / "test.tsv"),
            "label": 0,
            "text": 1,
            "splits": {"train": options.labels, "selection": 16},
            "split_seed": seed,
        },
        model={"source": "asset:minilm-l6", "max_length": 48},
        input={"augment": {"n_aug": options.copies, "policy": [[{"name": name, **knobs}]]}, "protect": protect},
        optim={"steps": steps, "batch_size": 16, "lr": 2e-4, "head_lr": 2e-3, "evaluate_every": steps},
    )


def hits(what: Experiment, workspace: Workspace) -> list[bool]:
    """Which test rows the trained experiment gets right."""
    rows = data.load(what.data)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(what, rows, collective=OneWorker(), execute=execute, workspace=workspace, directory=Path(folder))
        for _ in trial.reports():
            pass
        return [bool(hit) for hit in trial.score_test().hits]


def measure(folder: Path, options: argparse.Namespace, workspace: Workspace) -> None:
    known: dict[str, list[bool]] = {}
    if options.table and options.table.exists():
        lines = [json.loads(line) for line in options.table.read_text().splitlines()]
        known = {line["experiment"]: [mark == "1" for mark in line["hits"]] for line in lines}
    found: dict[str, list[list[bool]]] = {name: [] for name in arms(options.share)}
    for seed in options.seeds:
        for name, arm in arms(options.share).items():
            what = experiment(folder, seed, arm, options)
            if what.digest not in known:
                known[what.digest] = hits(what, workspace)
                if options.table:
                    marks = "".join("01"[hit] for hit in known[what.digest])
                    line = {"experiment": what.digest, "corpus": folder.name, "arm": name, "seed": seed, "hits": marks}
                    with options.table.open("a") as table:
                        table.write(json.dumps(line) + "\n")
            found[name].append(known[what.digest])
    table = {name: np.array(rows) for name, rows in found.items()}
    for name, rows in table.items():
        measuring.row(
            what=f"{folder.name}, {options.labels} labels, {options.steps} steps: {name}",
            unit="% accuracy",
            ours=100 * float(rows.mean()),
            peer="plain copies",
            theirs=100 * float(table["plain"].mean()),
            over_plain=_points(rows, table["plain"]),
            over_blind=_points(rows, table["blind"]),
            seeds=len(rows),
        )


def _points(rows: analysis.Hits, others: analysis.Hits) -> str:
    """The mean difference and its 95 % interval, in points."""
    found = analysis.difference(rows, others)
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=DATA)
    options.add_argument("--corpora", nargs="+", default=["trec", "sst2"])
    options.add_argument("--labels", type=int, default=100)
    options.add_argument("--steps", type=int, default=120)
    options.add_argument("--copies", type=int, default=4)
    options.add_argument("--p", type=float, default=0.15, help="probability with which a word is deleted")
    options.add_argument("--share", type=float, default=0.3, help="of the running words that carry the label")
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--table", type=Path)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    workspace = Workspace()
    for corpus in chosen.corpora:
        folder = chosen.data / corpus
        if (folder / "train.tsv").exists() and (folder / "test.tsv").exists():
            measure(folder, chosen, workspace)
        else:
            print(f"{corpus}: skipped, {folder} holds no train.tsv and test.tsv; give --data", flush=True)


if __name__ == "__main__":
    main()
