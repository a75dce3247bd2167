"""Words and their candidates as three flat arrays, which processes share through the page cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

_ARRAYS = ("words", "offsets", "candidates")


@dataclass(frozen=True, kw_only=True)
class SynonymTable:
    """Compressed sparse rows: the candidates of `words[i]` are `words[candidates[offsets[i]:offsets[i + 1]]]`.

    `words`: str, (n,), unique, sorted by code point. `offsets`: int64, (n + 1,). `candidates`: int32, (m,), indices
    into `words`, never the word itself, none twice, the likeliest first where the source knows an order.
    Memory-mapped and read-only. A lookup is `np.searchsorted(words, …)`.
    """

    words: npt.NDArray[np.str_]
    offsets: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]

    def of(self, word: str) -> list[str]:
        """The candidates of one word; none when it is unknown. For looking around, not for the data path."""
        at = int(np.searchsorted(self.words, word))
        if at == len(self.words) or self.words[at] != word:
            return []
        return [str(other) for other in self.words[self.candidates[self.offsets[at] : self.offsets[at + 1]]]]

    @classmethod
    def from_mapping(cls, candidates: Mapping[str, Iterable[str]]) -> SynonymTable:
        """From word → candidates in order; the word itself and repetitions are left out."""
        rows = {word: [o for o in dict.fromkeys(others) if o != word] for word, others in candidates.items()}
        words = sorted({*rows, *(other for others in rows.values() for other in others)})
        index = {word: i for i, word in enumerate(words)}
        lengths = [len(rows.get(word, ())) for word in words]
        return cls(
            words=np.array(words, dtype=np.str_),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            candidates=np.array([index[o] for word in words for o in rows.get(word, ())], dtype=np.int32),
        )

    def save(self, folder: Path) -> None:
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> SynonymTable:
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS})
