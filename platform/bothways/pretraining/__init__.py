"""A model trained on texts without labels: the texts, and the loop. What it is to learn is the preparation's to say."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from bothways import seeding
from bothways.batches import planning
from bothways.config import Augment, Optim
from bothways.data import Dataset
from bothways.errors import UserError
from bothways.input_side.preparation import Learner, Preparation, TokenBatch
from bothways.models.language_models import Checkpoint
from bothways.tokenization import Vocabulary, encoder
from bothways.training.optimizer import BETAS, EPS, learning_rate

HELD_OUT, HELD_OUT_SHARE = 256, 0.05
"""Texts that are not learnt from and say how well the others were: so many, or the share where that is less."""
WARMUP, WEIGHT_DECAY, CLIP_NORM = 0.05, 0.01, 1.0

Tell = Callable[[int, float], None]
"""Hears of a step (from 1) and the loss of its batch."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a preparation took and gave. `first`, `last`: mean loss on held-out texts before and after, in nats.

    `top1`, `top5`: how often the right answer is the likeliest, or among the five likeliest, after.
    """

    steps: int
    seconds: float
    first: float
    last: float
    top1: float
    top5: float


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Encoded texts: `ids` to learn from, `held_out`, and `digest` of all of them."""

    ids: pa.ListArray
    held_out: pa.ListArray
    digest: str

    @classmethod
    def of(cls, dataset: Dataset, path: str, kept: Vocabulary | None, max_length: int) -> Corpus:
        """Raises `UserError` when there are fewer than two texts."""
        found = texts(dataset)
        if len(found) < 2:
            raise UserError(f"model.prepare learns from the data's texts, and there are only {len(found)}")
        order = seeding.permutation(len(found), "held out")
        count = min(HELD_OUT, max(1, int(HELD_OUT_SHARE * len(found))))
        ids = encoder(path, kept)(max_length, pa.chunked_array([pa.array(found, pa.string())])).ids
        return cls(
            ids=ids.take(pa.array(np.sort(order[count:]))),
            held_out=ids.take(pa.array(np.sort(order[:count]))),
            digest=hashlib.sha256("\0".join(found).encode()).hexdigest(),
        )


def texts(dataset: Dataset) -> list[str]:
    """Every text of the training rows, pairs too, and of the unlabelled ones, once, in the order of their characters;
    none that a selection or test row has."""

    def those_of(*tables: pa.Table) -> set[str]:
        columns = (table[name].to_pylist() for table in tables for name in ("text", "pair"))
        return {text for column in columns for text in column if text}

    return sorted(those_of(dataset.train, dataset.unlabelled) - those_of(dataset.selection, dataset.test))


def counts(corpus: Corpus, size: int) -> seeding.F64:
    """How often each of `size` ids occurs in the texts that are learnt from."""
    return np.bincount(corpus.ids.flatten().to_numpy(), minlength=size)[:size].astype(np.float64)


def learn(
    stage: Preparation, learner: Learner, checkpoint: Checkpoint, corpus: Corpus, tell: Tell | None = None
) -> Record:
    """Train the learner's module in place. `tell`: hears of every step. Raises `UserError` when it diverges."""
    began = time.monotonic()
    optim = Optim(steps=stage.steps, lr=stage.lr, head_lr=stage.head_lr, warmup=WARMUP, weight_decay=WEIGHT_DECAY)
    adamw = torch.optim.AdamW(_groups(learner, optim), lr=optim.lr, betas=BETAS, eps=EPS, fused=True)
    parameters = [value for group in adamw.param_groups for value in group["params"]]
    before = measure(learner, checkpoint, corpus, stage.batch_size)
    learner.module.train()
    for step, batch in enumerate(_batches(stage, checkpoint, corpus)):
        torch.manual_seed(seeding.integer(checkpoint.seed, "dropout", step))
        loss = learner.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(parameters, CLIP_NORM))
        if not math.isfinite(norm):
            raise UserError(f"{stage.name}: the gradient is not finite at step {step + 1}: lower its lr, {stage.lr:g}")
        for group in adamw.param_groups:
            group["lr"] = learning_rate(optim, step) * group["scale"]
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        if tell is not None:
            tell(step + 1, float(loss.detach()))
    after = measure(learner, checkpoint, corpus, stage.batch_size)
    return Record(
        steps=stage.steps,
        seconds=time.monotonic() - began,
        first=before["loss"],
        last=after["loss"],
        top1=after["top1"],
        top5=after["top5"],
    )


def measure(learner: Learner, checkpoint: Checkpoint, corpus: Corpus, batch_size: int) -> dict[str, float]:
    """Means over the held-out texts: `loss`, `top1`, `top5`. The same masks, deletions and dropout every time."""
    learner.module.eval()
    total: dict[str, float] = {}
    lengths = corpus.held_out.value_lengths().to_numpy(zero_copy_only=False)
    order = np.argsort(lengths, kind="stable")
    torch.manual_seed(seeding.integer(checkpoint.seed, "measure"))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        keys = seeding.keys(checkpoint.seed, "held out", rows)
        for name, value in learner.measure(collate(corpus.held_out, rows, keys, checkpoint)).items():
            total[name] = total.get(name, 0.0) + value
    count = max(1.0, total.pop("count"))
    return {name: value / count for name, value in total.items()}


def _batches(stage: Preparation, checkpoint: Checkpoint, corpus: Corpus) -> Iterator[TokenBatch]:
    plan = planning.plan(
        corpus.ids.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64),
        Augment(),
        batch_size=stage.batch_size,
        steps=stage.steps,
        seed=checkpoint.seed,
    )
    for rows, epochs in zip(plan.row, plan.epoch, strict=True):
        yield collate(corpus.ids, rows, seeding.keys(checkpoint.seed, epochs, rows), checkpoint)


def collate(ids: pa.ListArray, rows: planning.I64, keys: seeding.U64, checkpoint: Checkpoint) -> TokenBatch:
    """The texts `rows`, padded to the longest."""
    taken = ids.take(pa.array(rows))
    lengths = taken.value_lengths().to_numpy(zero_copy_only=False)
    real = np.arange(lengths.max(initial=1)) < lengths[:, None]
    padded = np.full(real.shape, checkpoint.pad_id, np.int64)
    padded[real] = taken.flatten().to_numpy()
    special = np.isin(padded, checkpoint.special) | ~real
    return TokenBatch(ids=padded, real=real, special=special, keys=keys, rows=np.asarray(rows, np.int64))


def _groups(learner: Learner, optim: Optim) -> list[dict[str, Any]]:
    """All that moves, by weight decay and rate: embeddings and vectors do not decay; what is new has its own rate."""
    embeddings = {id(part.weight) for part in learner.module.modules() if isinstance(part, nn.Embedding)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in learner.module.named_parameters():
        decay = WEIGHT_DECAY if value.dim() > 1 and id(value) not in embeddings else 0.0
        scale = (optim.head_lr or optim.lr) / optim.lr if name in learner.new else 1.0
        groups.setdefault((decay, scale), []).append(value)
    return [{"params": found, "weight_decay": decay, "scale": scale} for (decay, scale), found in groups.items()]
