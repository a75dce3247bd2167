"""What people's ratings of a model's answers are worth to it: revisions to imitate, words to heed, a reward to raise.

    python tests/benchmarks/feedback.py [--seeds 5] [--steps 40] [--rows 100] [--keep DIR]

A sentence of a product review (asset vader_amazon) is negative, neutral or positive: what more than half of the twenty
people say who have rated it; sentences on which they are divided are left out. For each seed a first model learns from
`--rows` labelled sentences and answers 600 others. These are the rows of `data.feedback`: the sentence, its answer,
what the raters said of it (how many agree, what most find, their mean), and as the revision what most of them find.
The arms then start anew, with the same labelled rows, head and order, and as many steps:

- `cross_entropy`: the labelled rows alone, and once more with as many steps as `imitation` has passes;
- `own answers`: imitation of the first model's answers as they were, so of the same sentences without any rater;
- `imitation`, `hindsight` and `reward`: `language_feedback` in its three modes, beside the labelled rows.

Judged by 600 other sentences, each measure by the raters: `accuracy`, the share of answers that most of them give;
`told`, the same when the model reads what they said of the first model's answer (what `hindsight` learns);
`revision`, the mean log-probability of what they give (`imitation`); `reward`, the likeness to that less the likeness
to the answer revised, expected (`reward`); `agreement`, Spearman's correlation of p(positive) - p(negative) with their
mean rating. Differences are paired by seed and by row, with 95 % intervals. DIR keeps what is trained: a second run
goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from scipy import stats

from bothways import analysis, assets, data
from bothways.config import Experiment
from bothways.edges.local import OneWorker, execute
from bothways.ensembles import probabilities
from bothways.predict import Predictor
from bothways.seeding import F64
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

CLASSES = ("negative", "neutral", "positive")
CONTROL, LONGER, FIRST = "cross_entropy", "cross_entropy, equal passes", "first"
ARMS: Mapping[str, Mapping[str, Any]] = {
    CONTROL: {"name": "cross_entropy"},
    LONGER: {"name": "cross_entropy"},
    "own answers": {"name": "language_feedback", "mode": "imitation"},
    "imitation": {"name": "language_feedback", "mode": "imitation"},
    "hindsight": {"name": "language_feedback", "mode": "hindsight"},
    "reward": {"name": "language_feedback", "mode": "reward"},
}
ASKED, FIRST_SEED = 600, 1000


@dataclass(frozen=True)
class Rated:
    """A sentence and what each of its raters gave it, from -4 to 4."""

    text: str
    ratings: Sequence[int]

    @property
    def shares(self) -> list[float]:
        """Of the raters, for each class."""
        signs = np.sign(self.ratings)
        return [float((signs == sign).mean()) for sign in (-1, 0, 1)]

    @property
    def mean(self) -> float:
        return float(np.mean(self.ratings))

    @property
    def answer(self) -> str:
        """What most of them find."""
        return CLASSES[int(np.argmax(self.shares))]

    def said(self, answer: str) -> str:
        """What the raters say of an answer."""
        agree = round(self.shares[CLASSES.index(answer)] * len(self.ratings))
        return f"{agree} of {len(self.ratings)} agree, most find it {self.answer}, {self.mean:+.1f} in the mean"


def rated() -> list[Rated]:
    """The sentences on whose sign more than half of the raters agree, in an order of their own."""
    folder = assets.resolve("asset:vader_amazon")
    lines = [line for part in ("train", "unlabelled") for line in (folder / f"{part}.jsonl").open(encoding="utf-8")]
    found = {one["text"]: Rated(one["text"], one["ratings"]) for one in map(json.loads, lines)}
    agreed = [one for one in found.values() if max(one.shares) > 0.5]
    return [agreed[at] for at in np.random.default_rng(0).permutation(len(agreed))]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class Bench:
    """One process's sentences and model. `kept`: what each training says of the test sentences."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self.chosen, self.folder, self.workspace = chosen, folder, Workspace()
        sentences = rated()
        held = chosen.test
        self.test, self.asked, pool = (
            sentences[part] for part in (slice(held), slice(held, held + ASKED), slice(held + ASKED, None))
        )
        self.sources = {
            part: write(folder / f"{part}.jsonl", [{"text": one.text, "label": one.answer} for one in rows])
            for part, rows in (("pool", pool), ("test", self.test))
        }
        self.table = folder / "feedback.jsonl"
        lines = self.table.read_text("utf-8").splitlines() if self.table.exists() else []
        self.kept: dict[str, dict[str, Any]] = {one["key"]: one for one in map(json.loads, lines)}

    def key(self, arm: str, seed: int) -> str:
        return json.dumps(
            [arm, ARMS.get(arm), seed, *(getattr(self.chosen, of) for of in ("model", "steps", "rows", "test"))]
        )

    def experiment(self, arm: str, seed: int, feedback: str | None) -> Experiment:
        steps = self.chosen.steps * (2 if arm == LONGER else 1)
        splits = {"train": self.chosen.rows, "selection": 50, "test": 0.99}
        source = {"source": self.sources["pool"], "test_source": self.sources["test"], "split_seed": seed}
        return Experiment(
            seed=seed + FIRST_SEED * (arm == FIRST),
            data={**source, "splits": splits, "feedback": feedback and {"source": feedback}},
            model={"source": self.chosen.model, "max_length": 64},
            output={"objectives": [ARMS.get(arm, ARMS[CONTROL])]},
            optim={"steps": steps, "evaluate_every": steps, "batch_size": 16, "lr": 2e-4, "head_lr": 2e-3},
        )

    def says(self, arm: str, seed: int) -> dict[str, Any]:
        """What a trained model gives for the test sentences, told nothing (`alone`) and told what was said (`told`):
        probabilities (N, 3). Of the first model also its answers to them (`answers`) and to those asked (`asked`)."""
        key = self.key(arm, seed)
        if key not in self.kept:
            began = time.process_time()
            found = self.trained(arm, seed)
            self.kept[key] = {"key": key, "seconds": round(time.process_time() - began, 1), **found}
            with self.table.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps(self.kept[key]) + "\n")
        return self.kept[key]

    def trained(self, arm: str, seed: int) -> dict[str, Any]:
        first = self.says(FIRST, seed) if arm != FIRST else {}
        texts = [one.text for one in self.test]
        with tempfile.TemporaryDirectory(dir=self.folder) as gone:
            needs = "name" in ARMS.get(arm, {}) and ARMS[arm]["name"] != "cross_entropy"
            feedback = self.feedback(Path(gone) / "said.jsonl", first["asked"], arm) if needs else None
            by = self.predictor(self.experiment(arm, seed, feedback), Path(gone))
            if arm == FIRST:
                answers, asked = (self.answers(by, rows) for rows in (texts, [one.text for one in self.asked]))
                return {"answers": answers, "asked": asked}
            told = [
                f"{one.said(answer)}\n{answer}\n{one.text}"  # as the rows of feedback are read
                for one, answer in zip(self.test, first["answers"], strict=True)
            ]
            return {name: self.gives(by, rows).round(5).tolist() for name, rows in (("alone", texts), ("told", told))}

    def feedback(self, path: Path, answers: Sequence[str], arm: str) -> str:
        rows = [
            {
                "input": one.text,
                "output": answer,
                "feedback": one.said(answer),
                "revision": answer if arm == "own answers" else one.answer,
            }
            for one, answer in zip(self.asked, answers, strict=True)
        ]
        return write(path, rows)

    def predictor(self, experiment: Experiment, folder: Path) -> Predictor:
        trial = Trial(
            experiment,
            data.load(experiment.data),
            collective=OneWorker(),
            execute=execute,
            workspace=self.workspace,
            directory=folder / "trial",
        )
        for _ in trial.reports():
            pass
        return Predictor(trial.save())

    def gives(self, by: Predictor, texts: Sequence[str]) -> F64:
        return probabilities(by, texts)[:, [by.labels.index(name) for name in CLASSES]]

    def answers(self, by: Predictor, texts: Sequence[str]) -> list[str]:
        return [CLASSES[int(at)] for at in self.gives(by, texts).argmax(axis=1)]

    def measures(self, arm: str, seed: int) -> dict[str, F64]:
        """Each measure of each test row, (N,), or of all of them, (1,)."""
        said, first = self.says(arm, seed), self.says(FIRST, seed)
        alone, told = np.array(said["alone"]), np.array(said["told"])
        right = np.array([CLASSES.index(one.answer) for one in self.test])
        wrong = np.array([CLASSES.index(answer) for answer in first["answers"]])
        each = np.arange(len(right))
        likely = alone[each, right]
        agreement = stats.spearmanr(alone[:, 2] - alone[:, 0], [one.mean for one in self.test]).statistic
        return {
            "accuracy": (alone.argmax(axis=1) == right).astype(np.float64),
            "told": (told.argmax(axis=1) == right).astype(np.float64),
            "revision": np.log(likely.clip(1e-5)),
            "reward": likely - np.where(wrong == right, 0.0, alone[each, wrong]),
            "agreement": np.array([agreement]),
        }


def report(bench: Bench, seeds: int) -> None:
    """Trains what is not kept yet, all arms of a seed before the next one, then prints a line for each arm."""
    found = {(arm, seed): bench.measures(arm, seed) for seed in range(seeds) for arm in ARMS}
    for arm in ARMS:
        ours, theirs = (
            {name: np.stack([found[one, seed][name] for seed in range(seeds)]) for name in found[one, 0]}
            for one in (arm, CONTROL)
        )
        gains = {name: analysis.difference(values, theirs[name]) for name, values in ours.items()}
        measuring.row(
            what=f"after raters' feedback: {arm}",
            unit="accuracy",
            ours=float(ours["accuracy"].mean()),
            theirs=float(theirs["accuracy"].mean()),
            **{name: float(values.mean()) for name, values in ours.items() if name != "accuracy"},
            **{f"{name}_gain": [round(x, 4) for x in (gain.mean, gain.low, gain.high)] for name, gain in gains.items()},
            seconds=float(np.mean([bench.says(arm, seed)["seconds"] for seed in range(seeds)])),
            seeds=seeds,
            steps=bench.chosen.steps,
            rows=bench.chosen.rows,
            model=bench.chosen.model,
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--rows", type=int, default=100, help="labelled ones to learn from")
    options.add_argument("--test", type=int, default=600, help="sentences to judge by")
    options.add_argument("--model", default="asset:minilm-l3")
    options.add_argument("--keep", type=Path, help="folder of the results; default: gone afterwards")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as gone:
        folder = chosen.keep or Path(gone)
        folder.mkdir(parents=True, exist_ok=True)
        report(Bench(chosen, folder), chosen.seeds)


if __name__ == "__main__":
    main()
