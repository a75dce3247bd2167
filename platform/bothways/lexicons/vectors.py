"""Words as points: vectors that were learnt from what words occur with, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bothways.assets import resolve

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class WordVectors:
    """`values` (n, d), read-only: row i is the vector of `words[i]`. The most frequent words come first."""

    words: Sequence[str]
    values: F32

    @classmethod
    def load(cls, folder: Path) -> WordVectors:
        """From `words.txt`, a word a line, and `vectors.npy`."""
        words = (folder / "words.txt").read_text(encoding="utf-8").split("\n")
        values = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        if len(words) != len(values):
            raise ValueError(f"{folder} has {len(words)} words and {len(values)} vectors")
        return cls(words=words, values=values)

    @cached_property
    def _row(self) -> Mapping[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    @cached_property
    def _lengths(self) -> F32:
        lengths: F32 = np.maximum(np.linalg.norm(self.values, axis=1), np.finfo(np.float32).tiny)
        return lengths

    def rows(self, words: Iterable[str]) -> npt.NDArray[np.int64]:
        """The row of each word, -1 for one that is not there."""
        return np.array([self._row.get(word, -1) for word in words], dtype=np.int64)

    def nearest(self, word: str, count: int = 10) -> list[tuple[str, float]]:
        """The `count` other words with the greatest cosine to `word`, and that; none for a word that is not there."""
        (at,) = self.rows([word])
        if at < 0:
            return []
        cosines = (self.values @ self.values[at]) / (self._lengths * self._lengths[at])
        cosines[at] = -np.inf
        best = np.argsort(-cosines, kind="stable")[:count]
        return [(self.words[row], float(cosines[row])) for row in best if row != at]


@cache
def vectors(source: str = "asset:glove-6b-50d") -> WordVectors:
    """The vectors of an asset or a folder, loaded once per process. Raises `UserError` when they cannot be had."""
    return WordVectors.load(resolve(source))
