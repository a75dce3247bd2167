"""Whether a reward that a summariser is trained on rises: ROUGE-L on test rows, after more steps of cross-entropy or of
policy gradient, each from the same model.

    python tests/benchmarks/answers.py [--first 1000] [--steps 60] [--strength 5] [--seeds 5] [--keep FOLDER]

MiniLM-L3 as both halves of an encoder-decoder learns the summaries of package descriptions (asset debian_packages) for
`--first` steps; the arms go on from there, the learning rate starting anew. `self_critical` and `group_relative` have
ROUGE-L as their reward and, `--supervised` strong, the cross-entropy of the arm `cross_entropy` beside it; the steps
are as many, not the passes: `passes` says what a step costs.

Two scores: the ROUGE-L of answers drawn at temperature 1, whose mean is what the policy gradient raises, and of the
likeliest answer, word by word, which is what a user gets. A difference is paired by seed, with Student's interval over
seeds.
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
from bothways.text_scores import rouge
from bothways.training import ModelForward
from bothways.training.answers import Speaker
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

REWARD = {"name": "policy_gradient", "reward": {"name": "rouge", "kind": "rouge_l"}, "temperature": 1.0}
ARMS: dict[str, dict[str, Any]] = {
    "cross_entropy": {"name": "cross_entropy"},
    "self_critical": {**REWARD, "method": "self_critical", "draws": 1, "kl": 0.0},
    "group_relative": {**REWARD, "method": "group_relative", "draws": 4},
}
DRAWS = 4
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


def drawn(trial: Trial, rows: data.Dataset, workspace: Workspace) -> float:
    """The mean ROUGE-L of `DRAWS` answers to each test row."""
    module = trial._bundle.module.eval()
    speaker = Speaker(trial.experiment.task, trial._bundle, rows.labels, workspace)
    torch.manual_seed(0)
    found: list[float] = []
    for batch in trial._evaluation_batches("test")[0]:
        with torch.no_grad():
            said = speaker.draw(ModelForward(module, module, "fp32"), batch, DRAWS, temperature=1.0).said
        found += [rouge(*pair)["rouge_l"] for pair in zip(said.answers, said.references, strict=True)]
    return float(np.mean(found))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--first", type=int, default=1000)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--seed", type=int, default=1, help="the first one")
    options.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    options.add_argument("--strength", type=float, default=5.0)
    options.add_argument("--supervised", type=float, default=1.0)
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
    workspace, found = Workspace(), {arm: [] for arm in chosen.arms}  # type: ignore[var-annotated]
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        for arm in chosen.arms:
            objective = ARMS[arm]
            if arm != "cross_entropy":
                objective = {**objective, "strength": chosen.strength, "supervised": chosen.supervised}
            what = experiment(str(begun), objective, chosen.steps, seed, chosen.lr)
            if what.digest not in known:
                began = time.process_time()
                with tempfile.TemporaryDirectory() as directory:
                    trial = trained(what, rows, workspace, Path(directory))
                    scores = {**trial.score_test().metrics, "drawn": drawn(trial, rows, workspace)}
                kept = {name: scores[name] for name in ("drawn", "rouge_l", "rouge1", "bleu", "log_loss")}
                kept["passes"] = trial.history[-1].metrics["cost/passes"] / chosen.steps
                known[what.digest] = {"key": what.digest, "arm": arm, "seed": seed, **kept}
                known[what.digest]["seconds"] = round(time.process_time() - began, 1)
                with table.open("a") as opened:
                    opened.write(json.dumps(known[what.digest]) + "\n")
            found[arm].append(known[what.digest])
    for arm, kept in found.items():
        measuring.row(
            what=f"ROUGE-L of summaries, {chosen.first} + {chosen.steps} steps: {arm}",
            unit="%",
            ours=100 * float(np.mean([one["rouge_l"] for one in kept])),
            gain=gain(kept, found[chosen.arms[0]], "rouge_l"),
            drawn=100 * float(np.mean([one["drawn"] for one in kept])),
            gain_drawn=gain(kept, found[chosen.arms[0]], "drawn"),
            peer=chosen.arms[0],
            log_loss=float(np.mean([one["log_loss"] for one in kept])),
            passes=kept[0]["passes"],
            seconds=float(np.mean([one["seconds"] for one in kept])),
            seeds=len(kept),
        )


def gain(kept: list[dict[str, Any]], plain: list[dict[str, Any]], score: str) -> str:
    """Mean difference in points, with its 95 % interval over seeds."""
    each = 100 * (np.array([one[score] for one in kept]) - [one[score] for one in plain])
    if len(each) < 2:
        return f"{each.mean():+.2f}"
    half = float(stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5)
    return f"{each.mean():+.2f} [{each.mean() - half:+.2f}, {each.mean() + half:+.2f}]"


def _task() -> Any:
    return experiment("asset:minilm-l3", ARMS["cross_entropy"], 1, 0, 1e-4).task


if __name__ == "__main__":
    main()
