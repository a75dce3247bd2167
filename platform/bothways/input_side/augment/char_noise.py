"""Character noise: words drawn with probability p get one typing, scanning or writing error.

Latin script: `keyboard` (a neighbouring key), `ocr` (a look-alike), `swap`, `insert` (a neighbouring key as well) and
`delete`. Chinese: `homophone` (same syllable) and `glyph` (another written form). Of the kinds listed, each word draws
one that fits its script. The kinds are nlpaug's (Ma 2019); combining marks stay with their letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from bothways.input_side.protection import NEGATORS_ZH
from bothways.input_side.transform import Draw, InputContext, Transform, again, draw
from bothways.lexicons import SynonymTable, glyphs_zh
from bothways.registry import TRANSFORMS, Range
from bothways.seeding import U64, below
from bothways.text import IDEOGRAPH, LETTER, MARK, Bools, Ints, TextBatch, classes_of, ragged, true_at

_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")  # each half a key to the right of the one above
_MOST = 16  # homophones of a character: the common ones, which come first, are what people type
_LOOK_ALIKES = "0oODQ 1lIi 2zZ 5sS 6bG 8B3 9gq ce uv vy nh mn ft PR EF MN UV ao4 kx rn"
Kind = Literal["keyboard", "ocr", "swap", "insert", "delete", "homophone", "glyph"]
_LATIN: tuple[Kind, ...] = ("keyboard", "ocr", "swap", "insert", "delete")
_CHINESE: tuple[Kind, ...] = ("homophone", "glyph")


class _Table(NamedTuple):
    """The replacements of a character c are `others[first[c] : first[c] + counts[c]]`; of code points below 0x10000."""

    first: Ints
    counts: Ints
    others: npt.NDArray[np.uint32]


def _table(groups: dict[str, str]) -> _Table:
    counts = np.zeros(0x10000, dtype=np.int64)
    for character, others in groups.items():
        counts[ord(character)] = len(others)
    flat = "".join(groups[character] for character in sorted(groups))
    return _Table(np.cumsum(counts) - counts, counts, np.array([ord(c) for c in flat], dtype=np.uint32))


@cache
def _keyboard() -> _Table:
    place = {key: (column + row / 2, row) for row, keys in enumerate(_ROWS) for column, key in enumerate(keys)}
    near = {
        a: "".join(b for b, (x, y) in place.items() if b != a and max(abs(x - column), abs(y - row)) <= 1)
        for a, (column, row) in place.items()
    }
    return _table(near | {a.upper(): others.upper() for a, others in near.items() if a.isalpha()})


@cache
def _look_alikes() -> _Table:
    groups = _LOOK_ALIKES.split()
    letters = sorted(set("".join(groups)))
    return _table({a: "".join(sorted({b for g in groups if a in g for b in g if b != a})) for a in letters})


def _characters(table: SynonymTable) -> _Table:
    words: list[str] = table.words.tolist()
    bounds, candidates = table.offsets.tolist(), table.candidates.tolist()
    rows = {
        word: "".join(other for other in (words[i] for i in candidates[a : min(b, a + _MOST)]) if _is_safe(other))
        for word, (a, b) in zip(words, pairwise(bounds), strict=True)
        if _is_safe(word)
    }
    return _table({word: others for word, others in rows.items() if others})


def _is_safe(word: str) -> bool:
    """One character of the basic plane that negates nothing: no noise may make a negator of a homophone."""
    return len(word) == 1 and word < "\U00010000" and word not in NEGATORS_ZH


@cache
def _homophones() -> _Table:
    return _characters(glyphs_zh().homophones)


@cache
def _glyphs() -> _Table:
    return _characters(glyphs_zh().equivalents)


_SOURCES = {
    "keyboard": _keyboard,
    "insert": _keyboard,
    "ocr": _look_alikes,
    "homophone": _homophones,
    "glyph": _glyphs,
}


@TRANSFORMS.register("char_noise")
class CharNoise(Transform):
    """`p`: probability that a word gets an error. `kinds`: the errors there are."""

    term: ClassVar[str] = "character noise (typos, OCR errors, homophones)"
    source: ClassVar[str] = "Ma 2019, nlpaug; Belinkov & Bisk 2018"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.3)] = 0.1
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = (*_LATIN, "homophone")

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        drawn = draw(batch, context, self.p)
        errors = [
            _misspelt(batch, tokens, kind, again(drawn.bits[tokens], "place"))
            for kind, tokens in self._allotted(batch, drawn)
            if tokens.size
        ]
        if not errors:
            return batch
        tokens, codes, lengths = (np.concatenate(parts) for parts in zip(*errors, strict=True))
        return batch.replaced(tokens, codes, lengths)

    def _allotted(self, batch: TextBatch, drawn: Draw) -> Iterator[tuple[Kind, Ints]]:
        """Each kind of error and the words that draw it."""
        for kinds, script in ((_LATIN, LETTER), (_CHINESE, IDEOGRAPH)):
            mine = [kind for kind in self.kinds if kind in kinds]
            if mine:
                tokens = true_at(drawn.taken & (batch.kinds == script))
                which = below(again(drawn.bits[tokens], "kind"), len(mine))
                for i, kind in enumerate(mine):
                    yield kind, tokens[which == i]


def _misspelt(batch: TextBatch, tokens: Ints, kind: Kind, bits: U64) -> tuple[Ints, npt.NDArray[np.uint32], Ints]:
    """One error of this kind in each of `tokens` that has a place for it: those tokens, and their new words as code
    points and lengths."""
    raw, lengths = batch.words(tokens)
    codes = raw.astype(np.uint32)
    starts = np.cumsum(lengths) - lengths
    places = np.flatnonzero(_possible(codes, starts, lengths, kind))
    options = np.bincount(np.searchsorted(starts, places, side="right") - 1, minlength=tokens.size)
    able = np.flatnonzero(options)
    place = places[np.cumsum(options)[able] - options[able] + below(bits[able], options[able])]
    starts, lengths, bits = starts[able], lengths[able], again(bits[able], "character")
    new = lengths + (kind == "insert") - (kind == "delete")
    index = ragged(starts, new)
    at = np.repeat(place - starts, new)
    offset = np.arange(index.size) - np.repeat(np.cumsum(new) - new, new)
    if kind == "delete":
        index += offset >= at
    elif kind == "insert":
        index -= offset > at
    elif kind == "swap":
        index += (offset == at).astype(np.int64) - (offset == at + 1)
    result = codes[index]
    if kind in _SOURCES:
        table, old = _SOURCES[kind](), codes[place]
        result[offset == at] = table.others[table.first[old] + below(bits, table.counts[old])]
    return tokens[able], result, new


def _possible(codes: npt.NDArray[np.uint32], starts: Ints, lengths: Ints, kind: str) -> Bools:
    """Where in the words an error of this kind can be, without parting a letter from its marks."""
    base = classes_of(codes) < MARK
    ends = np.zeros(codes.size, dtype=bool)
    ends[starts + lengths - 1] = True
    bare = base & (ends | np.append(base[1:], True))  # no mark follows
    if kind == "swap":
        following = np.append(bare[1:] & (codes[1:] != codes[:-1]), False)
        return np.asarray(bare & following & ~ends)
    if kind == "delete":
        return np.asarray(bare & np.repeat(lengths > 1, lengths))
    return np.asarray(bare & (codes < 0x10000) & (_SOURCES[kind]().counts[np.minimum(codes, 0xFFFF)] > 0))
