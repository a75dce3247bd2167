"""The batch: tokens as spans of one flat array, and the edits that move them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from bothways.seeding import U64, keys
from bothways.text.arrays import gathered, ragged, true_at
from bothways.text.characters import (
    END,
    IDEOGRAPH,
    LETTER,
    SPACE,
    Bools,
    Bytes,
    Codes,
    Ints,
    classes_of,
    decoded,
    encoded,
)
from bothways.text.memory import keep_freed_memory
from bothways.text.segmentation import Segmentation, beginnings, merging

_SEPARATOR = "\0"  # behind each row of the flat array, where its end token points
_PREFIX = " "  # codes[0]: where a new gap of one space points to
_WIDE = (0x2E80, 0xFFEF)  # Chinese characters and their punctuation: no space follows them


@dataclass(frozen=True, eq=False)
class TextBatch:
    """R rows in T tokens (see the module's docstring). Built by `from_texts`; every edit returns a new batch.

    `codes`: the code points spans point into; codes[0] is a space. `starts`, `stops`: int64 (T, 2), the spans of gap
    and word. `kinds`: uint8 (T,), odd for words. `protected`: bool (T,), tokens that no edit may take. `offsets`: int64
    (R + 1,), where each row's tokens begin. `keys`: uint64 (R,), the rows' randomness. `changed`: bool (R,). `earlier`:
    the batch whose texts were rewritten as whole strings to make this one's originals; None where nothing was.
    """

    originals: Sequence[str]
    keys: U64
    codes: Codes
    starts: Ints
    stops: Ints
    kinds: Bytes
    protected: Bools
    offsets: Ints
    changed: Bools
    earlier: TextBatch | None = None

    @classmethod
    def from_texts(
        cls, texts: Sequence[str], row_keys: U64 | None = None, segmentation: Segmentation = "character"
    ) -> TextBatch:
        """Segments texts. `row_keys`: one 64-bit key per row; by default the row's number. Raises `UserError` when
        `segmentation` is "word" and jieba is missing."""
        keep_freed_memory()
        joined = _SEPARATOR.join((_PREFIX + texts[0], *texts[1:], "")) if len(texts) else _PREFIX
        codes = encoded(joined)
        classes = classes_of(codes)
        row_ends = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1)
        classes[0] = END
        classes[row_ends] = END
        begins = beginnings(joined, codes, classes, segmentation)
        begins[row_ends - 1] = True
        begins[:1] = True
        space = classes == SPACE
        begin = np.flatnonzero(begins & ~space[1:])
        begin += 1
        # The spans tile the array: gap, word, gap, word, … each begins where the one before it stops.
        edges = np.empty(2 * begin.size + 1, dtype=np.int64)
        edges[1::2] = begin
        if (space[1:] & space[:-1]).any():
            edges[:-1:2] = np.flatnonzero(begins & ~space[:-1])
            edges[:-1:2] += 1
        else:  # no gap is wider than one: the same for less
            np.subtract(begin, np.take(space, begin - 1), out=edges[:-1:2])
        edges[-1] = codes.size
        kinds = np.take(classes, begin)
        ends = true_at(kinds == END)
        stops = edges[1:].reshape(-1, 2).copy()
        stops[ends, 1] = begin[ends]
        return cls(
            originals=texts,
            keys=keys(np.arange(len(texts), dtype=np.uint64)) if row_keys is None else row_keys,
            codes=codes,
            starts=edges[:-1].reshape(-1, 2),
            stops=stops,
            kinds=kinds,
            protected=np.zeros(begin.size, dtype=bool),
            offsets=np.append(0, ends + 1),
            changed=np.zeros(len(texts), dtype=bool),
        )

    def __len__(self) -> int:
        return len(self.originals)

    @cached_property
    def sizes(self) -> Ints:
        """Tokens of each row, its end token included, (R,)."""
        return np.diff(self.offsets)

    @cached_property
    def is_word(self) -> Bools:
        """Words, as against punctuation and ends, (T,)."""
        return (self.kinds & 1).view(bool)

    @cached_property
    def free(self) -> Bools:
        """Words that an edit may take, (T,)."""
        return self.is_word & ~self.protected

    def rows_of(self, tokens: Ints) -> Ints:
        """The row of each of `tokens`."""
        return np.searchsorted(self.offsets, tokens, side="right") - 1

    def per_row(self, mask: Bools) -> Ints:
        """How many of each row's tokens are True, (R,)."""
        return np.add.reduceat(mask, self.offsets[:-1], dtype=np.int64)

    def words(self, tokens: Ints) -> tuple[Codes, Ints]:
        """The code points of these tokens' words, one after the other, and their lengths."""
        starts, stops = np.take(self.starts[:, 1], tokens), np.take(self.stops[:, 1], tokens)
        return gathered(self.codes, starts, stops), stops - starts

    def tokens(self) -> list[list[str]]:
        """Every row's words and punctuation, for people and tests."""
        return [
            [decoded(self.codes[a:b]) for a, b in zip(self.starts[i:j, 1], self.stops[i:j, 1], strict=True)][:-1]
            for i, j in pairwise(self.offsets)
        ]

    def lines(self) -> str:
        """The text the spans point into, each row ended by a line break: a pattern that stops at one stays in its row.
        Positions are those of `codes`."""
        return decoded(self.codes).replace(_SEPARATOR, "\n")

    def texts(self) -> list[str]:
        """The rows' texts. A row no edit touched has the text it came with."""
        rows = np.flatnonzero(self.changed)
        if not rows.size:
            return list(self.originals)
        if 2 * rows.size > len(self):  # all are put together: cheaper than to pick some
            return self._together(self.starts, self.stops, self.kinds, self.offsets)
        sizes = self.sizes[rows]
        some = ragged(self.offsets[rows], sizes)
        starts, stops = np.take(self.starts, some, axis=0), np.take(self.stops, some, axis=0)
        changed = self._together(starts, stops, np.take(self.kinds, some), np.append(0, np.cumsum(sizes)))
        result = list(self.originals)
        for row, new in zip(rows.tolist(), changed, strict=True):
            result[row] = new
        return result

    def _together(self, starts: Ints, stops: Ints, kinds: Bytes, offsets: Ints) -> list[str]:
        """The texts of rows of tokens."""
        starts, stops, runs = self.pieces(starts, stops, kinds, offsets)
        text = decoded(gathered(self.codes, starts[runs], stops[np.append(runs[1:], stops.size) - 1]))
        rows = text.split(_SEPARATOR)
        if len(rows) == offsets.size:
            return rows[:-1]
        bounds = np.append(0, np.cumsum(np.add.reduceat(stops - starts, 2 * offsets[:-1]))).tolist()
        return [text[a : b - 1] for a, b in pairwise(bounds)]  # a text has the separator in it, too

    def pieces(self, starts: Ints, stops: Ints, kinds: Bytes, offsets: Ints) -> tuple[Ints, Ints, Ints]:
        """Rows of tokens as spans in the order of the text, gap, word, gap, word …, (2T,) each, the last of a row with
        its separator; with a space where what stood between two words is gone and they would become one. Then, where
        runs of them begin that go on with one another."""
        starts, stops = starts.reshape(-1), stops.reshape(-1).copy()
        stops[2 * offsets[1:] - 1] += 1
        broken = np.empty(starts.size, dtype=bool)
        broken[:1] = True
        np.not_equal(starts[1:], stops[:-1], out=broken[1:])
        runs = true_at(broken)
        at = self._touching(starts, stops, kinds, runs[1:] >> 1)
        if at.size:
            starts = starts.copy()
            starts[2 * at], stops[2 * at] = 0, 1
            broken[2 * at] = broken[2 * at + 1] = True
            runs = true_at(broken)
        return starts, stops, runs

    def _touching(self, starts: Ints, stops: Ints, kinds: Bytes, at: Ints) -> Ints:
        """Of the tokens `at`, those that would become one word with the one before them, but are not by nature its
        neighbour."""
        at = at[starts[2 * at] == stops[2 * at]]  # few: one condition after the other
        at = at[starts[2 * at + 1] != stops[2 * at - 1]]
        here, before = kinds[at], kinds[at - 1]
        at = at[((here == LETTER) & (before != END)) | (before == LETTER)]
        return merging(self.codes, starts.reshape(-1, 2), stops.reshape(-1, 2), kinds, at)

    def _with(self, **changes: Any) -> TextBatch:
        return replace(self, **changes)

    def protecting(self, tokens: Ints | Bools) -> TextBatch:
        """The batch with these tokens protected too."""
        protected = self.protected.copy()
        protected[tokens] = True
        return self._with(protected=protected)

    def without(self, dropped: Bools) -> TextBatch:
        """Drops tokens, each with the gap before it; what begins a row then takes over the row's leading white space.

        `dropped`: bool (T,), never an end token.
        """
        kept = np.flatnonzero(~dropped)
        starts, stops = np.take(self.starts, kept, axis=0), np.take(self.stops, kept, axis=0)
        before = np.searchsorted(true_at(dropped), self.offsets)
        offsets = self.offsets - before
        headless = np.flatnonzero(dropped[self.offsets[:-1]])
        head, old = offsets[headless], self.offsets[headless]
        starts[head, 0], stops[head, 0] = self.starts[old, 0], self.stops[old, 0]
        return self._with(
            starts=starts,
            stops=stops,
            kinds=np.take(self.kinds, kept),
            protected=np.take(self.protected, kept),
            offsets=offsets,
            changed=self.changed | (np.diff(before) > 0),
        )

    def _marked(self, tokens: Ints) -> Bools:
        changed = self.changed.copy()
        changed[self.rows_of(tokens)] = True
        return changed

    def swapped(self, a: Ints, b: Ints) -> TextBatch:
        """Words a[i] and b[i] change places, gaps stay. All of `a` and `b` are different tokens."""
        to, back = np.concatenate([a, b]), np.concatenate([b, a])
        starts, stops, kinds = self.starts.copy(), self.stops.copy(), self.kinds.copy()
        starts[to, 1], stops[to, 1], kinds[to] = self.starts[back, 1], self.stops[back, 1], self.kinds[back]
        return self._with(starts=starts, stops=stops, kinds=kinds, changed=self._marked(a))

    def replaced(self, tokens: Ints, codes: Codes, lengths: Ints, kinds: Bytes | None = None) -> TextBatch:
        """New words for `tokens`: their code points one after the other, and their lengths (K,), none 0."""
        pool, new_stops = self._appended(codes, lengths)
        starts, stops = self.starts.copy(), self.stops.copy()
        starts[tokens, 1], stops[tokens, 1] = new_stops - lengths, new_stops
        new_kinds = self.kinds
        if kinds is not None:
            new_kinds = self.kinds.copy()
            new_kinds[tokens] = kinds
        return self._with(codes=pool, starts=starts, stops=stops, kinds=new_kinds, changed=self._marked(tokens))

    def inserted(self, before: Ints, codes: Codes, lengths: Ints, kinds: Bytes) -> TextBatch:
        """New tokens in front of the tokens `before` (K,), sorted; in a space-separated script one space follows, or,
        in front of a row's end, precedes them. At most one in front of an end, and none in a row without tokens."""
        pool, new_stops = self._appended(codes, lengths)
        earlier = np.searchsorted(before, self.offsets)
        total = self.kinds.size + before.size
        at = before + np.arange(before.size)
        old = np.ones(total, dtype=np.int64)
        old[at + 1] = 0  # a new token first repeats the token behind it, and with that its gap
        index = np.cumsum(old) - 1
        starts, stops = np.take(self.starts, index, axis=0), np.take(self.stops, index, axis=0)
        all_kinds, protected = np.take(self.kinds, index), np.take(self.protected, index)
        starts[at, 1], stops[at, 1], all_kinds[at], protected[at] = new_stops - lengths, new_stops, kinds, False
        spaced = (all_kinds[at] != IDEOGRAPH) & (all_kinds[at + 1] != IDEOGRAPH)
        gaps, last = at + 1, np.flatnonzero(all_kinds[at + 1] == END)
        if last.size:  # a row's trailing white space stays behind all words
            gaps[last] -= 1
            previous = np.take(pool, stops[at[last] - 1, 1] - 1)
            spaced[last] = (kinds[last] != IDEOGRAPH) & ((previous < _WIDE[0]) | (previous > _WIDE[1]))
        starts[gaps, 0], stops[gaps, 0] = 0, spaced
        return self._with(
            codes=pool,
            starts=starts,
            stops=stops,
            kinds=all_kinds,
            protected=protected,
            offsets=self.offsets + earlier,
            changed=self.changed | (np.diff(earlier) > 0),
        )

    def _appended(self, codes: Codes, lengths: Ints) -> tuple[Codes, Ints]:
        """The pool with new words at its end, and where each of them stops."""
        if self.codes.dtype == np.uint8 and codes.size and codes.max() < 0x100:
            codes = codes.astype(np.uint8, copy=False)
        return np.concatenate([self.codes, codes]), self.codes.size + np.cumsum(lengths)
