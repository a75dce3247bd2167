"""A model trained on texts without labels: the texts, and the loop. What it is to learn is the preparation's to say."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
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
from bothways.pretraining.reading import Rows, SentencePairs, Texts
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

    `top1`, `top5`: how often the right answer is the likeliest, or among the five likeliest, after. `told`: the share
    of pairs of sentences that are told apart, after; 0 where there are none.
    """

    steps: int
    seconds: float
    first: float
    last: float
    top1: float
    top5: float
    told: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts: `texts` to learn from and their `ids`, `held_out`, and `digest` of all of them. `max_length`: tokens of a
    row."""

    texts: tuple[str, ...]
    held_out: tuple[str, ...]
    ids: pa.ListArray
    digest: str
    max_length: int

    @classmethod
    def of(cls, dataset: Dataset, path: str, kept: Vocabulary | None, max_length: int) -> Corpus:
        """Raises `UserError` when there are fewer than two texts."""
        found = texts(dataset)
        if len(found) < 2:
            raise UserError(f"model.prepare learns from the data's texts, and there are only {len(found)}")
        order = seeding.permutation(len(found), "held out")
        count = min(HELD_OUT, max(1, int(HELD_OUT_SHARE * len(found))))
        learnt, held_out = (tuple(found[at] for at in np.sort(part)) for part in (order[count:], order[:count]))
        return cls(
            texts=learnt,
            held_out=held_out,
            ids=_encoded(learnt, path, kept, max_length),
            digest=hashlib.sha256("\0".join(found).encode()).hexdigest(),
            max_length=max_length,
        )

    def rows(self, stage: Preparation, checkpoint: Checkpoint) -> tuple[Rows, Rows]:
        """What a stage learns from, and what it is measured on. Raises `UserError` where it asks for pairs of
        sentences and there are none."""
        if not stage.pairs:
            held_out = _encoded(self.held_out, checkpoint.path, checkpoint.vocabulary, self.max_length)
            return Texts(self.ids, checkpoint), Texts(held_out, checkpoint)
        learnt, held = (SentencePairs(part, self.max_length, checkpoint) for part in (self.texts, self.held_out))
        if not learnt.pairs or len(self.texts) < 2:
            raise UserError(f"{stage.name}: next_sentence learns from texts of several sentences, and there are none")
        return learnt, held


def _encoded(texts: Sequence[str], path: str, kept: Vocabulary | None, max_length: int) -> pa.ListArray:
    return encoder(path, kept)(max_length, pa.chunked_array([pa.array(texts, pa.string())])).ids


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
    learnt, held_out = corpus.rows(stage, checkpoint)
    before = measure(learner, held_out, checkpoint.seed, stage.batch_size)
    learner.module.train()
    for step, batch in enumerate(_batches(stage, learnt, checkpoint.seed)):
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
    after = measure(learner, held_out, checkpoint.seed, stage.batch_size)
    return Record(
        steps=stage.steps,
        seconds=time.monotonic() - began,
        first=before["loss"],
        last=after["loss"],
        top1=after["top1"],
        top5=after["top5"],
        told=after["told"],
    )


def measure(learner: Learner, held_out: Rows, seed: int, batch_size: int) -> dict[str, float]:
    """Means over the held-out rows: `loss`, `top1`, `top5`; `told` of pairs of sentences, whose mean loss is part of
    the loss. The same masks, deletions and dropout every time."""
    learner.module.eval()
    total = dict.fromkeys(("count", "pairs", "pair_loss", "told"), 0.0)
    order = np.argsort(held_out.lengths, kind="stable")
    torch.manual_seed(seeding.integer(seed, "measure"))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = held_out.batch(rows, seeding.keys(seed, "held out", rows))
        for name, value in learner.measure(batch).items():
            total[name] = total.get(name, 0.0) + value
    count, pairs = (max(1.0, total.pop(name)) for name in ("count", "pairs"))
    pair_loss, told = (total.pop(name) / pairs for name in ("pair_loss", "told"))
    means = {name: value / count for name, value in total.items()}
    return {**means, "loss": means["loss"] + pair_loss, "told": told}


def _batches(stage: Preparation, learnt: Rows, seed: int) -> Iterator[TokenBatch]:
    plan = planning.plan(learnt.lengths, Augment(), batch_size=stage.batch_size, steps=stage.steps, seed=seed)
    for rows, epochs in zip(plan.row, plan.epoch, strict=True):
        yield learnt.batch(rows, seeding.keys(seed, epochs, rows))


def _groups(learner: Learner, optim: Optim) -> list[dict[str, Any]]:
    """All that moves, by weight decay and rate: embeddings and vectors do not decay; what is new has its own rate."""
    embeddings = {id(part.weight) for part in learner.module.modules() if isinstance(part, nn.Embedding)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in learner.module.named_parameters():
        decay = WEIGHT_DECAY if value.dim() > 1 and id(value) not in embeddings else 0.0
        scale = (optim.head_lr or optim.lr) / optim.lr if name in learner.new else 1.0
        groups.setdefault((decay, scale), []).append(value)
    return [{"params": found, "weight_decay": decay, "scale": scale} for (decay, scale), found in groups.items()]
