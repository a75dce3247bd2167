"""Which unlabelled rows are worth a label next: those that the model is unsure of, and not the same thing twice.

Batch active learning by diverse gradient embeddings (BADGE, Ash et al. 2020). A row's gradient embedding is the
gradient of the loss in the weights of the head, had the row the label that the model thinks likeliest:

    g(x) = (p(x) - onehot(argmax p(x))) ⊗ h(x),   p the probabilities, h what the head reads

It is long where the model is unsure and points where the head would move. k-means++ (Arthur & Vassilvitskii 2007)
draws rows far from those drawn before, in proportion to the squared distance to the nearest of them; the first is the
longest.

One departure from the paper: the zero vector counts as drawn. Otherwise all the rows that the model is sure of, which
have almost no gradient, are together a likely draw.

|a⊗h - b⊗k|² = |a|²|h|² + |b|²|k|² - 2(a·b)(h·k), so g itself is never made. Rows are looked at in blocks, and of all
that were looked at the `POOL` with the largest entropy stay, so that memory does not grow with the file. Draws are
noise from counters: the same rows in another order, or in other blocks, give the same choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bothways import seeding
from bothways.data.duplicates import alike
from bothways.seeding import F64, U64
from bothways.text import Bools, Ints

BLOCK = 1024
POOL = 10_000


class Looks(Protocol):
    """What looks at texts: `predict.Predictor`."""

    def looked_at(self, texts: list[str], pairs: list[str] | None = None) -> tuple[F64, F64]:
        """The probability of every label, (N, C), and what the head reads, (N, H)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row without a label: where it stands in its source (from 1), and its texts; `pair` is empty for one text."""

    line: int
    text: str
    pair: str = ""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A row to be labelled. `uncertainty`: the entropy of the model's probabilities, from 0 to 1 (all alike)."""

    row: Row
    uncertainty: float


@dataclass(kw_only=True)
class Seen:
    """Texts that are not to be suggested: those labelled already, and those that came before. `left_out`: rows so far.

    Texts that differ at most in case, spaces and punctuation are the same.
    """

    keys: set[bytes] = field(default_factory=set)
    left_out: int = 0

    def add(self, texts: Iterable[tuple[str, str]]) -> None:
        self.keys.update(_key(*texts_of) for texts_of in texts)

    def fresh(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows that are new, each once."""
        for row in rows:
            key = _key(row.text, row.pair)
            if key in self.keys:
                self.left_out += 1
            else:
                self.keys.add(key)
                yield row


def _key(text: str, pair: str) -> bytes:
    return hashlib.blake2b(alike(text, pair), digest_size=8).digest()


@dataclass
class _Pool:
    """Rows that may be chosen: their probabilities (N, C), features (N, H) and random keys (N,)."""

    rows: list[Row]
    probabilities: F64
    features: F64
    keys: U64

    def __add__(self, other: _Pool) -> _Pool:
        arrays = ("probabilities", "features", "keys")
        return _Pool(
            self.rows + other.rows, *(np.concatenate([getattr(self, name), getattr(other, name)]) for name in arrays)
        )

    def take(self, at: Ints) -> _Pool:
        return _Pool([self.rows[i] for i in at.tolist()], self.probabilities[at], self.features[at], self.keys[at])

    def unsurest(self, count: int) -> _Pool:
        if len(self.rows) <= count:
            return self
        return self.take(np.lexsort((self.keys, -entropy(self.probabilities)))[:count])


def entropy(probabilities: F64) -> F64:
    """Of each row, (N,), from 0 (sure) to 1 (all classes alike)."""
    safe = np.maximum(probabilities, np.finfo(np.float64).tiny)
    found: F64 = -(probabilities * np.log(safe)).sum(axis=1) / np.log(max(probabilities.shape[1], 2))
    return np.clip(found, 0.0, 1.0)


def suggest(by: Looks, rows: Iterable[Row], count: int, *, paired: bool = False, seed: int = 0) -> list[Suggestion]:
    """`count` rows (or all, where there are fewer), in the order in which they were drawn: any first n of them are the
    choice for n."""
    pool: _Pool | None = None
    for block in _blocks(rows):
        texts = [row.text for row in block]
        pairs = [row.pair for row in block] if paired else None
        content = np.array([seeding.word(f"{row.text}\0{row.pair}") for row in block], np.uint64)
        found = _Pool(block, *by.looked_at(texts, pairs), seeding.keys("suggest", seed, content))
        pool = found if pool is None else pool + found
        if len(pool.rows) > 2 * POOL:
            pool = pool.unsurest(POOL)
    if pool is None:
        return []
    pool = pool.unsurest(POOL)
    pool = pool.take(np.argsort(pool.keys, kind="stable"))
    unsure = entropy(pool.probabilities)
    chosen = k_means_pp(pool.probabilities, pool.features, pool.keys, count)
    return [Suggestion(row=pool.rows[at], uncertainty=float(unsure[at])) for at in chosen.tolist()]


def k_means_pp(probabilities: F64, features: F64, keys: U64, count: int) -> Ints:
    """Row numbers of `count` rows (all, where there are fewer) drawn by k-means++ over their gradient embeddings.

    A draw in proportion to weights is the largest of log weight + Gumbel noise of the row's own key.
    """
    outer = probabilities.copy()
    outer[np.arange(len(outer)), probabilities.argmax(axis=1)] -= 1.0
    lengths = (outer**2).sum(axis=1) * (features**2).sum(axis=1)
    free: Bools = np.ones(len(outer), dtype=bool)
    nearest = lengths.copy()
    chosen: list[int] = []
    while len(chosen) < min(count, len(outer)):
        if chosen:
            noise = seeding.uniforms(keys, len(chosen))
            with np.errstate(divide="ignore"):
                score = np.log(nearest) - np.log(-np.log(np.maximum(noise, 2.0**-54)))
        else:
            score = lengths
        if not np.isfinite(score[free]).any():  # what is left repeats what was chosen: the longest of it
            score = lengths
        at = int(np.where(free, score, -np.inf).argmax())
        free[at] = False
        chosen.append(at)
        shared = (outer @ outer[at]) * (features @ features[at])
        distance = np.maximum(lengths + lengths[at] - 2.0 * shared, 0.0)
        nearest = np.minimum(nearest, distance)
    return np.array(chosen, dtype=np.int64)


def _blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    block: list[Row] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block
