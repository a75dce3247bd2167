"""Whether a reward that a summariser is trained on rises: ROUGE-L on test rows, after more steps of cross-entropy or of
policy gradient, each from the same model.

    python tests/benchmarks/answers.py [--first 200] [--steps 40] [--seeds 5] [--keep FOLDER]

MiniLM-L3 as both halves of an encoder-decoder learns the summaries of package descriptions (asset debian_packages) for
`--first` steps; the arms go on from there, the learning rate starting anew. `self_critical` and `group_relative` have
ROUGE-L as their reward and the cross-entropy of the arm `cross_entropy` beside it; the steps are as many, not the
passes: `passes` says what a step costs. A difference is paired by seed, with Student's interval over seeds.
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
import torch
from scipy import stats

from bothways import data, models
from bothways.config import Experiment
from bothways.edges.local import OneWorker, execute
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

REWARD = {"name": "policy_gradient", "reward": {"name": "rouge", "kind": "rouge_l"}, "temperature": 1.0}
ARMS: dict[str, dict[str, Any]] = {
    "cross_entropy": {"name": "cross_entropy"},
    "self_critical": {**REWARD, "method": "self_critical", "draws": 1, "kl": 0.0},
    "group_relative": {**REWARD, "method": "group_relative", "draws": 4},
}
DATA = {"source": "asset:debian_packages", "label": "target", "splits": {"train": 2000, "selection": 50, "test": 200}}
TASK = {"name": "seq2seq", "target_length": 16}


def experiment(source: str, objective: dict[str, Any], steps: int, seed: int, lr: float) -> Experiment:
    return Experiment(
        seed=seed,
        task=TASK,
        data=DATA,
        model={"source": source, "max_length": 48},
        output={"objectives": [objective]},
        optim={"steps": steps, "evaluate_every": steps, "batch_size": 8, "lr": lr, "head_lr": lr},
    )


def trained(what: Experiment, rows: data.Dataset, workspace: Workspace, folder: Path) -> Trial:
    trial = Trial(what, rows, collective=OneWorker(), execute=execute, workspace=workspace, directory=folder)
    for _ in trial.reports():
        pass
    return trial


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--first", type=int, default=200)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--strength", type=float, default=1.0)
    options.add_argument("--lr", type=float, default=1e-4)
    options.add_argument("--keep", type=Path, help="folder of the results; default: gone afterwards")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as gone:
        run(chosen, chosen.keep or Path(gone))


def run(chosen: argparse.Namespace, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    begun, table = folder / f"begun-{chosen.first}", folder / "answers.jsonl"
    rows = data.load(experiment("asset:minilm-l3", ARMS["cross_entropy"], 1, 0, 1e-4).data, None, _task())
    if not begun.exists():
        first = experiment("asset:minilm-l3", ARMS["cross_entropy"], chosen.first, 0, 5e-4)
        models.export(trained(first, rows, Workspace(), folder / "first").save(), begun)
    known = {one["key"]: one for one in map(json.loads, table.read_text().splitlines())} if table.exists() else {}
    workspace, found = Workspace(), {arm: [] for arm in ARMS}  # type: ignore[var-annotated]
    for seed in range(1, chosen.seeds + 1):
        for arm, objective in ARMS.items():
            if arm != "cross_entropy":
                objective = {**objective, "strength": chosen.strength}
            what = experiment(str(begun), objective, chosen.steps, seed, chosen.lr)
            if what.digest not in known:
                began = time.process_time()
                with tempfile.TemporaryDirectory() as directory:
                    trial = trained(what, rows, workspace, Path(directory))
                    scores = trial.score_test().metrics
                kept = {name: scores[name] for name in ("rouge_l", "rouge1", "bleu", "log_loss")}
                kept["passes"] = trial.history[-1].metrics["cost/passes"] / chosen.steps
                known[what.digest] = {"key": what.digest, "arm": arm, "seed": seed, **kept}
                known[what.digest]["seconds"] = round(time.process_time() - began, 1)
                with table.open("a") as opened:
                    opened.write(json.dumps(known[what.digest]) + "\n")
            found[arm].append(known[what.digest])
    for arm, kept in found.items():
        score, plain = (np.array([one["rouge_l"] for one in found[name]]) for name in (arm, "cross_entropy"))
        gain = score - plain
        half = float(stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5) if len(gain) > 1 else 0.0
        measuring.row(
            what=f"ROUGE-L of summaries, {chosen.first} + {chosen.steps} steps: {arm}",
            unit="%",
            ours=100 * float(score.mean()),
            peer="cross_entropy",
            theirs=100 * float(plain.mean()),
            gain=f"{100 * gain.mean():+.2f} [{100 * (gain.mean() - half):+.2f}, {100 * (gain.mean() + half):+.2f}]",
            log_loss=float(np.mean([one["log_loss"] for one in kept])),
            passes=kept[0]["passes"],
            seconds=float(np.mean([one["seconds"] for one in kept])),
            seeds=len(kept),
        )


def _task() -> Any:
    return experiment("asset:minilm-l3", ARMS["cross_entropy"], 1, 0, 1e-4).task


if __name__ == "__main__":
    main()
