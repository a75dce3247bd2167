"""Seeded, stratified draws: which rows make which split, by content and never by position in the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


def row_ids(rows: Iterable[tuple[str, str, str]]) -> Int64:
    """63-bit ids from (text, pair, label): blake2b of the content and of how many equal rows came before, (N,)."""
    seen: dict[str, int] = {}
    ids = []
    for row in rows:
        content = "\0".join(row)
        repetition = seen.get(content, 0)
        seen[content] = repetition + 1
        ids.append(row_id(f"{content}\0{repetition}" if repetition else content))
    return np.array(ids, dtype=np.int64)


def row_id(content: str) -> int:
    """The 63-bit id of a row's content: its text, pair and label with NULs between."""
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little") >> 1


def apportion(size: int, available: Int64, reserve: int = 0) -> Int64:
    """How many of `size` rows each class gives, (K,): proportional, largest remainders first, ties by class number.

    Every class gives at least one where it can. `reserve`: rows that a class keeps back for draws that follow, unless
    only they could fill this one. `size` is at most `available.sum()`.
    """
    cap = np.clip(available - reserve, 0, None)
    if cap.sum() < size:
        cap = available
    least = np.minimum(cap, 1) if size >= np.count_nonzero(cap) else np.zeros_like(cap)
    quota = size * available / max(available.sum(), 1)
    taken: Int64 = np.clip(np.floor(quota).astype(np.int64), least, cap)
    while (missing := size - taken.sum()) != 0:
        step = np.sign(missing)
        free = taken < cap if step > 0 else taken > least
        taken[np.argmax(np.where(free, step * (quota - taken), -np.inf))] += step
    return taken


def draw(labels: Int64, keys: U64, sizes: Sequence[int]) -> list[Int64]:
    """Disjoint stratified draws of `sizes` rows, in that order. Row numbers of each, in the order of their keys.

    `labels` (N,) class numbers, `keys` (N,) the rows' random keys. A class that is rare is kept for the later draws
    first: with as many rows as draws it has one in each.
    """
    by_class = [rows[np.argsort(keys[rows], kind="stable")] for rows in _classes(labels)]
    used = np.zeros(len(by_class), dtype=np.int64)
    available = np.array([len(rows) for rows in by_class], dtype=np.int64)
    draws = []
    for later, size in zip(reversed(range(len(sizes))), sizes, strict=True):
        taken = apportion(size, available - used, reserve=later)
        parts = [rows[u : u + t] for rows, u, t in zip(by_class, used, taken, strict=True)]
        rows = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        draws.append(rows[np.argsort(keys[rows], kind="stable")])
        used = used + taken
    return draws


def _classes(labels: Int64) -> list[Int64]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
