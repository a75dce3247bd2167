"""A batch of texts as flat arrays: cut into words once, changed by arithmetic, put together exactly.

A batch is one array of code points. A token is two spans of it: the gap before a word (white space, or nothing) and
the word; every row closes with an end token, whose gap is the row's trailing white space and whose word is empty.
Deleting, swapping, inserting and substituting move spans, never characters; new words are appended to the array. What
was not changed is given back as the very string that came in.

Words: runs of letters and digits, with apostrophes, hyphens and dots inside them (`don't`, `re-imagining`, `1.2.3`) and
clitics (`'s`); each CJK character, each emoji (with its modifiers and joiners); runs of punctuation are tokens, not
words. The rules do not depend on the language, so that mixed text needs no decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, Literal
from unicodedata import category

import numpy as np
import numpy.typing as npt

from bothways.errors import UserError
from bothways.seeding import U64, keys

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8 | np.uint32]
Ints = npt.NDArray[np.int64]
Segmentation = Literal["character", "word"]

# Classes of characters, and kinds of tokens: a word is odd. The last four never survive segmentation.
SPACE, LETTER, PUNCTUATION, IDEOGRAPH, END, SYMBOL, FLAG = 0, 1, 2, 3, 4, 5, 7
_JOINER, _NUMBER_JOINER, MARK, _ZWJ = 8, 10, 12, 14

_SEPARATOR = "\n"  # between rows of the flat array; never part of one
_PREFIX = " "  # codes[0]: where a new gap of one space points to
_APOSTROPHES = "'’"
_JOINERS = _APOSTROPHES + "-‐‑_.&@·\u00ad"
_NUMBER_JOINERS = ",:/"
_CJK = (
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3031, 0x3035),
    (0x3041, 0x3096),  # hiragana
    (0x309D, 0x309F),
    (0x30A1, 0x30FA),  # katakana
    (0x30FC, 0x30FF),
    (0x3105, 0x312F),
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)


def _class_of(character: str) -> int:
    if character.isspace():
        return SPACE
    if character in _JOINERS:
        return _JOINER
    if character in _NUMBER_JOINERS:
        return _NUMBER_JOINER
    kind = category(character)
    if kind[0] in "LN":
        return LETTER
    if kind[0] == "M" or 0x1F3FB <= ord(character) <= 0x1F3FF or 0xE0020 <= ord(character) <= 0xE007F:
        return MARK
    if kind == "So" and ord(character) > 0xFF:  # ©, ® and ° keep Latin-1 text free of symbols
        return FLAG if 0x1F1E6 <= ord(character) <= 0x1F1FF else SYMBOL
    return PUNCTUATION


@cache
def _classes() -> Bytes:
    """The class of every code point, (0x110000,) uint8. 40 ms, once per process."""
    table = np.full(0x110000, PUNCTUATION, dtype=np.uint8)
    for first, last in ((0, 0x31FFF), (0xE0000, 0xE01EF)):  # elsewhere: ideographs, private use, nothing
        table[first : last + 1] = [_class_of(chr(code)) for code in range(first, last + 1)]
    for first, last in _CJK:
        table[first : last + 1] = IDEOGRAPH
    table[[0x200C, 0x200D]] = MARK, _ZWJ
    table.flags.writeable = False
    return table


@cache
def _latin_classes() -> bytes:
    """The first 256 of `_classes`, for `bytes.translate`: the fastest look-up there is."""
    return bytes(_class_of(chr(code)) for code in range(256))


def encoded(text: str) -> Codes:
    """The code points of a text: uint8 when all are below 256, else uint32 (lone surrogates included)."""
    try:
        return np.frombuffer(text.encode("latin-1"), dtype=np.uint8)
    except UnicodeEncodeError:
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def decoded(codes: Codes) -> str:
    """The text of code points; the inverse of `encoded`."""
    if codes.dtype == np.uint8:
        return codes.tobytes().decode("latin-1")
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def classes_of(codes: Codes) -> Bytes:
    """The class of every character, (N,) uint8, writable."""
    low = bytearray(codes.astype(np.uint8, copy=False).tobytes())
    classes = np.frombuffer(low.translate(_latin_classes()), dtype=np.uint8)
    if codes.dtype != np.uint8:
        high = np.flatnonzero(codes > 0xFF)
        classes[high] = _classes()[codes[high]]
    return classes


def ragged(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, … for `length` numbers, span after span: the flat index that gathers spans."""
    ends = np.cumsum(lengths)
    index = np.repeat(starts - ends + lengths, lengths)
    index += np.arange(index.size)
    return index


def _glue_marks(classes: Bytes) -> Bools | None:
    """Gives marks (accents, modifiers, joiners) the class of what they follow; True where no word may begin."""
    marks = np.flatnonzero(classes >= MARK)
    if not marks.size:
        return None
    joiners = classes == _ZWJ
    base = np.where(classes >= MARK, 0, np.arange(classes.size))
    inherited = classes[np.maximum.accumulate(base)][marks]
    loose = (inherited == SPACE) | (inherited == END)  # nothing to follow: begins a word itself, or goes on with one
    classes[marks] = np.where(loose, LETTER, inherited)
    glued = np.zeros(classes.size, dtype=bool)
    glued[marks[~loose]] = True
    after = np.flatnonzero(joiners[:-1] & glued[:-1]) + 1
    glued[after] |= (classes[after] != SPACE) & (classes[after] != END)
    return glued


def _join(classes: Bytes, codes: Codes) -> None:
    """Makes apostrophes, hyphens, dots … letters inside a word and punctuation elsewhere."""
    at = np.flatnonzero(classes >= _JOINER)
    before, after = classes[at - 1], classes[at + 1]
    inner = (before == LETTER) & (after == LETTER)
    numeric = classes[at] == _NUMBER_JOINER
    inner &= ~numeric | (_is_digit(codes[at - 1]) & _is_digit(codes[at + 1]))
    far = np.minimum(at[:, None] + np.array([2, 3]), classes.size - 1)
    apostrophe = np.isin(codes[at], [ord(mark) for mark in _APOSTROPHES])
    clitic = apostrophe & ((before == SPACE) | (before == END)) & (after == LETTER) & (classes[far] != LETTER).any(1)
    classes[at] = np.where(inner | clitic, LETTER, PUNCTUATION)


def _is_digit(codes: npt.NDArray[Any]) -> Bools:
    return (codes >= 0x30) & (codes <= 0x39)


def _jieba_inner(joined: str, classes: Bytes) -> Ints:
    """Positions inside jieba's words, where no word may begin."""
    try:
        import jieba
    except ImportError:
        raise UserError("segmentation: word needs jieba; install the extra `bothways[zh]`, or use character") from None
    jieba.setLogLevel("WARNING")
    edges = np.flatnonzero(np.diff((classes == IDEOGRAPH).astype(np.int8), prepend=0, append=0))
    inner = [
        np.delete(np.arange(first, last), np.cumsum([0, *map(len, jieba.lcut(joined[first:last]))])[:-1])
        for first, last in edges.reshape(-1, 2).tolist()
    ]
    return np.concatenate(inner) if inner else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class TextBatch:
    """R rows in T tokens (see the module's docstring). Built by `from_texts`; every edit returns a new batch.

    `codes`: the code points spans point into; codes[0] is a space. `starts`, `lengths`: int64 (T, 2), columns gap and
    word. `kinds`: uint8 (T,), odd for words. `protected`: bool (T,), tokens that no edit may take. `offsets`: int64
    (R + 1,), where each row's tokens begin. `keys`: uint64 (R,), the rows' randomness. `changed`: bool (R,).
    """

    originals: Sequence[str]
    keys: U64
    codes: Codes
    starts: Ints
    lengths: Ints
    kinds: Bytes
    protected: Bools
    offsets: Ints
    changed: Bools

    @classmethod
    def from_texts(
        cls, texts: Sequence[str], row_keys: U64 | None = None, segmentation: Segmentation = "character"
    ) -> TextBatch:
        """Segments texts. `row_keys`: one 64-bit key per row; by default the row's number. Raises `UserError` when
        `segmentation` is "word" and jieba is missing."""
        joined = _PREFIX + _SEPARATOR.join(texts) + _SEPARATOR if len(texts) else _PREFIX
        codes = encoded(joined)
        classes = classes_of(codes)
        row_ends = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1)
        classes[0] = END
        classes[row_ends] = END
        glued = _glue_marks(classes) if codes.dtype != np.uint8 else None
        _join(classes, codes)
        begins = np.empty(classes.size, dtype=bool)
        begins[0] = False
        np.not_equal(classes[1:], classes[:-1], out=begins[1:])
        if codes.dtype != np.uint8:
            begins |= (classes == IDEOGRAPH) | (classes == SYMBOL)
            if segmentation == "word":
                begins[_jieba_inner(joined, classes)] = False
        if glued is not None:
            begins &= ~glued
        begins[row_ends] = True
        if len(texts):
            begins[1] = True
        begin = np.flatnonzero(begins)
        kinds = classes[begin]
        word = np.flatnonzero(kinds)
        starts = np.empty((word.size, 2), dtype=np.int64)
        lengths = np.empty((word.size, 2), dtype=np.int64)
        pieces = np.diff(begin, append=codes.size)
        lengths[:, 1] = pieces[word]
        before = word - 1  # -1 is the last piece: an end, hence no gap
        lengths[:, 0] = np.where(kinds[before] == SPACE, pieces[before], 0)
        starts[:, 1] = begin[word]
        starts[:, 0] = starts[:, 1] - lengths[:, 0]
        kinds = kinds[word]
        ends = np.flatnonzero(kinds == END)
        lengths[ends, 1] = 0
        return cls(
            originals=texts,
            keys=keys(np.arange(len(texts), dtype=np.uint64)) if row_keys is None else row_keys,
            codes=codes,
            starts=starts,
            lengths=lengths,
            kinds=kinds,
            protected=np.zeros(word.size, dtype=bool),
            offsets=np.append(0, ends + 1),
            changed=np.zeros(len(texts), dtype=bool),
        )

    def __len__(self) -> int:
        return len(self.originals)

    @property
    def sizes(self) -> Ints:
        """Tokens of each row, its end token included, (R,)."""
        return np.diff(self.offsets)

    @property
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
        total = np.append(0, np.cumsum(mask))
        return np.asarray(total[self.offsets[1:]] - total[self.offsets[:-1]])

    def words(self, tokens: Ints) -> tuple[Codes, Ints]:
        """The code points of these tokens' words, one after the other, and their lengths."""
        lengths = self.lengths[tokens, 1]
        return self.codes[ragged(self.starts[tokens, 1], lengths)], lengths

    def tokens(self) -> list[list[str]]:
        """Every row's words and punctuation, for people and tests."""
        return [
            [decoded(self.codes[start : start + length]) for (_, start), (_, length) in zip(s, n, strict=True)][:-1]
            for s, n in ((self.starts[a:b].tolist(), self.lengths[a:b].tolist()) for a, b in pairwise(self.offsets))
        ]

    def texts(self) -> list[str]:
        """The rows' texts. A row no edit touched is the string it came from."""
        rows = np.flatnonzero(self.changed)
        if not rows.size:
            return list(self.originals)
        offsets, starts, lengths, kinds = self.offsets, self.starts, self.lengths, self.kinds
        if rows.size < len(self):
            index = ragged(offsets[rows], self.sizes[rows])
            starts, lengths, kinds = starts[index], lengths[index], kinds[index]
            offsets = np.append(0, np.cumsum(self.sizes[rows]))
        touching = np.flatnonzero((kinds[1:] == LETTER) & (kinds[:-1] == LETTER) & (lengths[1:, 0] == 0)) + 1
        if touching.size:  # what stood between two words is gone: keep them two
            starts, lengths = starts.copy(), lengths.copy()
            starts[touching, 0], lengths[touching, 0] = 0, 1
        flat_lengths = lengths.reshape(-1)
        ends = np.cumsum(flat_lengths)
        index = np.repeat(starts.reshape(-1) - ends + flat_lengths, flat_lengths)
        index += np.arange(index.size)
        text = decoded(np.take(self.codes, index))
        bounds = np.append(0, ends[2 * offsets[1:] - 1]).tolist()
        changed = [text[a:b] for a, b in pairwise(bounds)]
        if rows.size == len(self):
            return changed
        result = list(self.originals)
        for row, new in zip(rows.tolist(), changed, strict=True):
            result[row] = new
        return result

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
        starts, lengths = self.starts[kept], self.lengths[kept]
        offsets = np.searchsorted(kept, self.offsets)
        headless = np.flatnonzero(dropped[self.offsets[:-1]])
        starts[offsets[headless], 0] = self.starts[self.offsets[headless], 0]
        lengths[offsets[headless], 0] = self.lengths[self.offsets[headless], 0]
        return self._with(
            starts=starts,
            lengths=lengths,
            kinds=self.kinds[kept],
            protected=self.protected[kept],
            offsets=offsets,
            changed=self.changed | (np.diff(offsets) != self.sizes),
        )

    def _marked(self, tokens: Ints) -> Bools:
        changed = self.changed.copy()
        changed[self.rows_of(tokens)] = True
        return changed

    def swapped(self, a: Ints, b: Ints) -> TextBatch:
        """Words a[i] and b[i] change places, gaps stay. All of `a` and `b` are different tokens."""
        to, back = np.concatenate([a, b]), np.concatenate([b, a])
        starts, lengths, kinds = self.starts.copy(), self.lengths.copy(), self.kinds.copy()
        starts[to, 1], lengths[to, 1], kinds[to] = self.starts[back, 1], self.lengths[back, 1], self.kinds[back]
        return self._with(starts=starts, lengths=lengths, kinds=kinds, changed=self._marked(a))

    def replaced(self, tokens: Ints, codes: Codes, lengths: Ints, kinds: Bytes | None = None) -> TextBatch:
        """New words for `tokens`: their code points one after the other, and their lengths (K,), none 0."""
        pool, new_starts = self._appended(codes, lengths)
        starts, new_lengths = self.starts.copy(), self.lengths.copy()
        starts[tokens, 1], new_lengths[tokens, 1] = new_starts, lengths
        new_kinds = self.kinds
        if kinds is not None:
            new_kinds = self.kinds.copy()
            new_kinds[tokens] = kinds
        return self._with(codes=pool, starts=starts, lengths=new_lengths, kinds=new_kinds, changed=self._marked(tokens))

    def inserted(self, before: Ints, codes: Codes, lengths: Ints, kinds: Bytes) -> TextBatch:
        """New tokens in front of the tokens `before` (K,), sorted; in a space-separated script one space follows."""
        pool, new_starts = self._appended(codes, lengths)
        counts = np.ones(self.kinds.size, dtype=np.int64)
        np.add.at(counts, before, 1)
        index = np.repeat(np.arange(self.kinds.size), counts)
        at = before + np.arange(before.size)
        starts, all_lengths = self.starts[index], self.lengths[index]
        all_kinds, protected = self.kinds[index], self.protected[index]
        starts[at, 1], all_lengths[at, 1], all_kinds[at], protected[at] = new_starts, lengths, kinds, False
        spaced = (all_kinds[at] != IDEOGRAPH) & (all_kinds[at + 1] != IDEOGRAPH)
        starts[at + 1, 0], all_lengths[at + 1, 0] = 0, spaced
        return self._with(
            codes=pool,
            starts=starts,
            lengths=all_lengths,
            kinds=all_kinds,
            protected=protected,
            offsets=self.offsets + np.searchsorted(before, self.offsets),
            changed=self._marked(before),
        )

    def _appended(self, codes: Codes, lengths: Ints) -> tuple[Codes, Ints]:
        """The pool with new words at its end, and where each of them starts."""
        if self.codes.dtype == np.uint8 and codes.size and codes.max() < 0x100:
            codes = codes.astype(np.uint8, copy=False)
        return np.concatenate([self.codes, codes]), self.codes.size + np.cumsum(lengths) - lengths


def kinds_of(codes: Codes, lengths: Ints) -> Bytes:
    """The token kind of each word: the class of its first character, (K,)."""
    first: Bytes = classes_of(codes)[np.cumsum(lengths) - lengths]
    first[(first == SPACE) | (first > FLAG)] = PUNCTUATION
    return first
