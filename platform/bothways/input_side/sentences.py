"""Where sentences begin in a batch: rules over punctuation and its neighbours, for English and Chinese alike.

A period after an abbreviation, an initial or inside a quotation that goes on in lower case ends nothing; `。！？` always
end a sentence, and so does an empty line. Marks that stand alone, as in tokenised text, are read like those that do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from bothways.input_side.lookup import WordSet, fold
from bothways.text import END, IDEOGRAPH, PUNCTUATION, Bools, Bytes, Ints, TextBatch, ragged

_ALWAYS, _MARK, _DOT, _DOTS, _CLOSES, _COMMA = 1, 2, 4, 8, 16, 32
_SAYS = (("。！？｡", _ALWAYS), ("!?", _MARK), (".．", _DOT), ("…", _DOTS), ("'\"’”)]」』）》】", _CLOSES), (",，;；、", _COMMA))
_CLOSING = "'’”)]」』）》】"  # a double quote that stands alone may open as well
_BEFORE_NAMES = (
    "mr mrs ms dr prof st mt gen col lt sgt capt rev hon pres gov sen rep vs fig vol cf eg ie approx feat op dir"
).split()
_SHORTENED = "etc inc ltd co corp jr sr dept est jan feb apr jun jul aug sep sept oct nov dec no min max ave bros".split()


@dataclass(frozen=True, eq=False)
class Sentences:
    """S sentences, row after row. `first`, `stop`: token spans, ends of rows left out. `rows`, `words`: each's row and
    its number of words."""

    first: Ints
    stop: Ints
    rows: Ints
    words: Ints


def sentences(batch: TextBatch, by_clause: Bools | None = None) -> Sentences:
    """The sentences of every row that is not empty. In rows of `by_clause` (R,) a comma or semicolon ends one too."""
    begins = np.zeros(batch.kinds.size + 1, dtype=bool)
    begins[_ends(batch, by_clause) + 1] = True
    begins[:-1] |= _after_empty_line(batch)
    before = np.append(0, np.cumsum(batch.is_word))
    begins[:-1] &= before[:-1] > np.repeat(before[batch.offsets[:-1]], batch.sizes)  # marks alone are no sentence
    begins[batch.offsets[:-1]] = True
    first = np.flatnonzero(begins[:-1] & (batch.kinds != END))
    rows = batch.rows_of(first)
    stop = np.minimum(np.append(first[1:], batch.kinds.size), batch.offsets[rows + 1] - 1)
    return Sentences(first, stop, rows, before[stop] - before[first])


@cache
def _table() -> Bytes:
    """What a character says about the end of a sentence, (0x10000,)."""
    table = np.zeros(0x10000, dtype=np.uint8)
    for characters, flag in _SAYS:
        table[[ord(c) for c in characters]] |= flag
    return table


@cache
def _closing() -> Bools:
    table = np.zeros(0x10000, dtype=bool)
    table[[ord(c) for c in _CLOSING]] = True
    return table


def _ends(batch: TextBatch, by_clause: Bools | None) -> Ints:
    """The last token of each sentence that punctuation ends."""
    marks = np.flatnonzero(batch.kinds == PUNCTUATION)
    codes, lengths = batch.words(marks)
    if not marks.size:
        return marks
    starts = np.cumsum(lengths) - lengths
    flags = np.take(_table(), codes, mode="clip")
    says = np.bitwise_or.reduceat(flags, starts)
    dots = np.add.reduceat(flags == _DOT, starts, dtype=np.int64)
    relevant = (says & ~np.uint8(_CLOSES)) > 0
    near, says, dots = marks[relevant], says[relevant], dots[relevant]
    after = near + 1
    apart = (batch.starts[after, 0] != batch.stops[after, 0]) | (batch.kinds[after] == IDEOGRAPH)
    lower, upper = _case(batch, after)
    goes_on = lower & (says & _CLOSES > 0)
    several = (dots > 1) | (says & _DOTS > 0)
    full_stop = np.where(
        several, ~lower & (batch.kinds[after] != IDEOGRAPH), ~_abbreviated(batch, near, upper) & ~goes_on
    )
    ends = (says & _ALWAYS > 0) & ~goes_on
    ends |= (says & _MARK > 0) & apart & ~goes_on
    ends |= (says & (_DOT | _DOTS) > 0) & apart & full_stop
    ends &= (says & _COMMA == 0) | (says & _ALWAYS > 0)
    if by_clause is not None:
        ends |= (says & _COMMA > 0) & by_clause[batch.rows_of(near)] & apart
    found = near[ends]
    return found + _closes(batch, found + 1)


def _case(batch: TextBatch, tokens: Ints) -> tuple[Bools, Bools]:
    """Whether these tokens begin with a lower-case letter, and with an upper-case one."""
    codes = batch.codes[np.minimum(batch.starts[tokens, 1], batch.codes.size - 1)]
    codes = np.where(batch.kinds[tokens] == END, 0, codes)
    latin = (codes >= ord("a")) & (codes <= ord("z")) | (codes >= 0xDF) & (codes <= 0xFF)
    return latin, fold(codes) != codes


@cache
def _abbreviations() -> tuple[WordSet, WordSet]:
    return WordSet.of(_BEFORE_NAMES), WordSet.of(_SHORTENED)


def _abbreviated(batch: TextBatch, marks: Ints, upper: Bools) -> Bools:
    """Whether the word that a mark touches is an abbreviation. `upper`: whether what follows begins in upper case."""
    touching = (batch.starts[marks, 0] == batch.stops[marks, 0]) & ~np.isin(marks, batch.offsets)
    some = np.flatnonzero(touching)
    before = marks[some] - 1
    some, before = some[batch.is_word[before]], before[batch.is_word[before]]
    result = np.zeros(marks.size, dtype=bool)
    if not some.size:
        return result
    codes, lengths = batch.words(before)
    always, in_front_of_lower = _abbreviations()
    starts = np.cumsum(lengths) - lengths
    initial = (lengths == 1) & (codes[starts] != ord("I")) & (fold(codes)[starts] != codes[starts])
    dotted = np.bitwise_or.reduceat(codes == ord("."), starts)
    shortened = in_front_of_lower.holds(codes, lengths) & ~upper[some]
    result[some] = always.holds(codes, lengths) | initial | dotted | shortened
    return result


def _closes(batch: TextBatch, tokens: Ints) -> Bools:
    """Whether these tokens only close what an earlier one opened."""
    result = batch.kinds[tokens] == PUNCTUATION
    some = np.flatnonzero(result)
    if some.size:
        codes, lengths = batch.words(tokens[some])
        closes = np.take(_closing(), codes, mode="clip")
        result[some] = np.logical_and.reduceat(closes, np.cumsum(lengths) - lengths)
    return result


def _after_empty_line(batch: TextBatch) -> Bools:
    """Tokens with at least two line breaks in the gap before them."""
    starts, stops = batch.starts[:, 0], batch.stops[:, 0]
    result = np.zeros(batch.kinds.size, dtype=bool)
    some = np.flatnonzero(stops - starts > 1)
    if some.size:
        lengths = (stops - starts)[some]
        breaks = batch.codes[ragged(starts[some], lengths)] == ord("\n")
        result[some] = np.add.reduceat(breaks, np.cumsum(lengths) - lengths, dtype=np.int64) > 1
    return result
