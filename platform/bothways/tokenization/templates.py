"""Where special tokens go, and what is cut when a row is too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bothways.text import Ints, ragged

I32 = npt.NDArray[np.int32]


class Ragged(NamedTuple):
    """N rows of ids: all of them one after the other, int32, and how many each row has, int64 (N,)."""

    flat: I32
    counts: Ints

    def cut(self, counts: Ints) -> Ragged:
        """The first `counts` ids of each row, of those there are."""
        kept = np.minimum(self.counts, counts)
        if np.array_equal(kept, self.counts):
            return self
        return Ragged(np.take(self.flat, ragged(np.cumsum(self.counts) - self.counts, kept)), kept)


def cut_to(room: int, texts: Sequence[Ragged]) -> list[Ragged]:
    """Rows of one text or two, cut to `room` ids in all: the longer text first (`longest_first` of the tokenizers
    library), from the right."""
    if len(texts) == 1:
        return [texts[0].cut(np.asarray(room))]
    first, second = (text.counts for text in texts)
    shorter = np.minimum(first, second)
    longer = np.where(shorter > room, shorter, np.maximum(shorter, room - shorter))
    halved = shorter + longer > room
    shorter, longer = np.where(halved, room // 2, shorter), np.where(halved, room // 2 + room % 2, longer)
    fits = first + second <= room
    return [
        text.cut(np.where(fits, text.counts, np.where(is_longer, longer, shorter)))
        for text, is_longer in zip(texts, (first > second, first <= second), strict=True)
    ]


@dataclass(frozen=True)
class Template:
    """The special tokens in front of, between and behind the texts of a row, and the type of each token.

    `specials`: one run of ids for each text, and one more. `special_types`: their types. `types`: the texts' types.
    """

    specials: tuple[tuple[int, ...], ...]
    special_types: tuple[tuple[int, ...], ...]
    types: tuple[int, ...]

    @classmethod
    def of(cls, ids: Sequence[int], types: Sequence[int], texts: Sequence[int]) -> Template:
        """From a row whose texts are the single tokens `texts`, in that order. Raises `ValueError` when the row does
        not hold each of them once."""
        at = [ids.index(token) for token in texts]
        bounds = [-1, *at, len(ids)]
        if at != sorted(at) or any(ids.count(token) != 1 for token in texts):
            raise ValueError(f"cannot tell the texts from the special tokens in {ids}")
        runs = [slice(a + 1, b) for a, b in pairwise(bounds)]
        return cls(
            specials=tuple(tuple(ids[run]) for run in runs),
            special_types=tuple(tuple(types[run]) for run in runs),
            types=tuple(types[place] for place in at),
        )

    @property
    def size(self) -> int:
        """Special tokens of a row."""
        return sum(map(len, self.specials))

    def filled(self, texts: Sequence[Ragged]) -> tuple[Ragged, I32]:
        """The texts with their special tokens, and every token's type."""
        counts = sum((text.counts for text in texts), np.asarray(self.size))
        ends = np.cumsum(counts)
        at = ends - counts
        ids = np.empty(int(ends[-1]) if ends.size else 0, dtype=np.int32)
        types = np.zeros(ids.size, dtype=np.int32)
        for number, (special, special_types) in enumerate(zip(self.specials, self.special_types, strict=True)):
            for token, kind in zip(special, special_types, strict=True):
                ids[at], types[at] = token, kind
                at = at + 1
            if number < len(texts):
                places = ragged(at, texts[number].counts)
                ids[places], types[places] = texts[number].flat, self.types[number]
                at = at + texts[number].counts
        return Ragged(ids, counts), types
