"""Training: real tokens per second beside HF Trainer's defaults, from the same start, for as many optimiser steps.

    python tests/benchmarks/training.py [--seeds 5] [--steps 120] [--batch 8] [--precision fp32] [--rows 1200]

MiniLM on SST-2 sentences (on the asset rotten_tomatoes where they are not beside the project): AdamW, linear decay from
5e-5, clipping at 1, all cores, as `TrainingArguments()` says; its batch is 8 and its arithmetic fp32, and it keeps the
latter whatever `--precision` ours is given. Each side lives in a process of its own that has trained before, as a lane
of a search has; for each seed they train in turns, from the same head, and the same function scores both on the same
held-out rows. Real tokens leave padding out. Ours reads text as it goes; the Trainer gets its tokens ready-made.
`limit`: the tokens that the fastest matrix product of that precision, measured in the same run, could carry.
Needs the extra `bothways[bench]` (the Trainer asks for accelerate).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from measuring import row

SST2 = Path(__file__).parents[3] / "shared" / "data" / "sst2" / "train.tsv"
HELD_OUT = 600
FLOP_PER_TOKEN = 64.8e6
"""Of MiniLM-L6, forward and backward, short sentences: 6 x the parameters of its layers."""


@dataclass(frozen=True)
class Asked:
    """What both sides are to do. `precision`: of ours."""

    rows: int
    steps: int
    batch: int
    precision: str


@cache
def workspace() -> Any:
    """What one process keeps between its trials."""
    from bothways.config import Run
    from bothways.edges import local
    from bothways.training.workspace import Workspace

    return Workspace(local.device(Run()))


def prepare(asked: Asked, seed: int) -> Any:
    """A trial, ready to train: the model is at its base weights with the seed's head."""
    import torch

    from bothways import data
    from bothways.config import Experiment
    from bothways.edges import local
    from bothways.training import trial

    torch.set_num_threads(os.cpu_count() or 1)
    source: dict[str, Any] = {"source": "asset:rotten_tomatoes"}
    if SST2.exists():
        source = {"source": str(SST2), "label": 0, "text": 1}
    experiment = Experiment(
        seed=seed,
        data={**source, "splits": {"train": asked.rows, "selection": 2, "test": HELD_OUT}},
        model={"max_length": 128},
        optim={
            **{"steps": asked.steps, "batch_size": asked.batch, "precision": asked.precision, "lr": 5e-5},
            **{"weight_decay": 0.0, "warmup": 0.0, "schedule": "linear", "clip_norm": 1.0},
            "evaluate_every": asked.steps,
        },
    )
    dataset = data.load(experiment.data)
    made = trial.Trial(
        experiment,
        dataset,
        collective=local.OneWorker(),
        execute=local.execute,
        workspace=workspace(),
        directory=Path(tempfile.mkdtemp()),
    )
    return made, workspace().model(experiment.model.source, dataset.labels), dataset


def ours(asked: Asked, seed: int) -> dict[str, float]:
    """Seconds, real tokens and held-out loss of our loop."""
    made, _, _ = prepare(asked, seed)
    began = time.perf_counter()
    report = list(made.reports())[-1]
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "tokens": report.metrics["cost/tokens"], **made.score_test().metrics}


def theirs(asked: Asked, seed: int) -> dict[str, float]:
    """The same of `transformers.Trainer` with its defaults."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    made, bundle, dataset = prepare(asked, seed)
    torch.use_deterministic_algorithms(False)
    fast = AutoTokenizer.from_pretrained(bundle.path)
    table = dataset.train
    encoded = fast(table["text"].to_pylist(), truncation=True, max_length=128)
    train = Dataset.from_dict({**encoded, "labels": table["label"].to_pylist()})
    tokens = 0
    collate = DataCollatorWithPadding(fast)

    def counting(features: list[dict[str, Any]]) -> Any:
        nonlocal tokens
        batch = collate(features)
        tokens += int(batch["attention_mask"].sum())
        return batch

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            **{
                "output_dir": folder,
                "max_steps": asked.steps,
                "per_device_train_batch_size": asked.batch,
                "seed": seed,
            },
            **{"save_strategy": "no", "report_to": "none", "disable_tqdm": True},
        )
        trainer = Trainer(model=bundle.module, args=arguments, train_dataset=train, data_collator=counting)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "tokens": tokens, **made.score_test().metrics}


def matmul_limit(precision: str) -> float:
    """GFLOP/s of the best matrix product of a batch's shapes, all cores."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    best = 0.0
    for rows in (256, 1024, 2048):
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        x, w = torch.randn(rows, 1536, dtype=kind), torch.randn(1536, 1536, dtype=kind)
        for _ in range(10):
            began = time.perf_counter()
            for _ in range(5):
                x @ w
            best = max(best, 5 * 2 * rows * 1536 * 1536 / (time.perf_counter() - began))
    return best / 1e9


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=120)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options.add_argument("--rows", type=int, default=1200)
    chosen = options.parse_args()
    if importlib.util.find_spec("accelerate") is None:
        row(what="training", skipped="HF Trainer needs accelerate: pip install 'bothways[bench]'")
        return

    import numpy as np

    from bothways.analysis import estimate

    asked = Asked(chosen.rows, chosen.steps, chosen.batch, chosen.precision)
    spawn = get_context("spawn")
    results: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    with ProcessPoolExecutor(1, spawn) as mine, ProcessPoolExecutor(1, spawn) as other:
        for pool, side in ((mine, ours), (other, theirs)):
            pool.submit(side, replace(asked, steps=5), 0).result()  # imports, first touches
        for seed in range(chosen.seeds):
            results["ours"].append(mine.submit(ours, asked, seed).result())
            results["theirs"].append(other.submit(theirs, asked, seed).result())
        limit = mine.submit(matmul_limit, chosen.precision).result()
    speed = {side: [r["tokens"] / r["seconds"] for r in found] for side, found in results.items()}
    losses = {side: np.array([r["log_loss"] for r in found]) for side, found in results.items()}
    gap = estimate((losses["ours"] - losses["theirs"])[:, None])
    possible = limit * 1e9 / FLOP_PER_TOKEN
    row(
        what="training, real tokens/s",
        peer="transformers.Trainer, defaults",
        ours=float(np.median(speed["ours"])),
        theirs=float(np.median(speed["theirs"])),
        ratio=float(np.median(np.array(speed["ours"]) / np.array(speed["theirs"]))),
        loss=float(losses["ours"].mean()),
        their_loss=float(losses["theirs"].mean()),
        loss_difference=[round(gap.mean, 4), round(gap.low, 4), round(gap.high, 4)],
        limit=possible,
        share_of_limit=float(np.median(speed["ours"])) / possible,
        matmul_gflops=limit,
        seeds=chosen.seeds,
        steps=chosen.steps,
        batch=chosen.batch,
        precision=chosen.precision,
    )


if __name__ == "__main__":
    main()
