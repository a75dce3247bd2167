"""Words that carry the label and must survive: negators, numbers, and what the user lists."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bothways.config import Protect
from bothways.input_side.lookup import WordSet
from bothways.text import Bools, Bytes, Codes, Ints, TextBatch, decoded, spans

_NEGATORS = (
    "not no never none nothing neither nor nobody nowhere cannot without hardly scarcely barely rarely seldom nope "
    "nt dont doesnt didnt cant wont isnt arent wasnt werent wouldnt couldnt shouldnt hasnt havent hadnt aint"
)
NEGATORS = tuple(_NEGATORS.split())
NEGATORS_ZH = "不没無无非未别別莫勿毋弗否甭休"
NUMERALS_ZH = "〇零一二两兩三四五六七八九十百千万萬亿億"


@cache
def _lexicon(words: tuple[str, ...]) -> tuple[WordSet, Bools]:
    """The words, and the shapes they have, (0x4000,)."""
    variants = [variant for w in words for variant in (w.lower(), w.upper())]
    first, last = (np.array([ord(w[at]) for w in variants], dtype=np.uint16) for at in (0, -1))
    shapes = np.zeros(0x4000, dtype=bool)
    shapes[_shape(first, last, np.array([len(w) for w in variants]))] = True
    return WordSet.of(list(words)), shapes


def _shape(first: npt.NDArray[Any], last: npt.NDArray[Any], lengths: Ints) -> npt.NDArray[np.uint16]:
    """First letter, last letter and length in 14 bits: rules out nearly every word that is not listed. The low five
    bits of a Latin letter do not depend on its case."""
    shape = lengths.astype(np.uint16)
    shape &= 15
    for codes in (last, first):
        shape <<= 5
        shape |= codes.astype(np.uint16) & np.uint16(31)
    return shape


def _among(batch: TextBatch, words: tuple[str, ...]) -> Ints:
    """Words of the batch that are one of `words`, in any case."""
    lexicon, shapes = _lexicon(words)
    starts, stops = np.ascontiguousarray(batch.starts[:, 1]), np.ascontiguousarray(batch.stops[:, 1])
    shape = _shape(np.take(batch.codes, starts), np.take(batch.codes, stops - 1), stops - starts)
    maybe = np.flatnonzero(np.take(shapes, shape) & batch.is_word)
    return np.asarray(maybe[lexicon.holds(*batch.words(maybe))])


_NUMBER, _NEGATOR, _APOSTROPHE = 1, 2, 4


@cache
def _marks() -> Bytes:
    """What a character says of the word it is in, (0x10000,): a digit or numeral, a Chinese negator, or an apostrophe,
    which may belong to an n't."""
    table = np.zeros(0x10000, dtype=np.uint8)
    for characters, mark in (("0123456789" + NUMERALS_ZH, _NUMBER), (NEGATORS_ZH, _NEGATOR), ("'’", _APOSTROPHE)):
        table[[ord(c) for c in characters]] = mark
    return table


def _marked(codes: Codes) -> tuple[Ints, Bytes]:
    """The characters that say something of their words, and what."""
    if codes.dtype == np.uint8:
        at = np.flatnonzero((codes - np.uint8(0x30) < 10) | (codes == 0x27))
        return at, np.take(_marks(), codes[at])
    marks = np.take(_marks(), codes, mode="clip")  # U+FFFF says nothing
    at = np.flatnonzero(marks != 0)
    return at, marks[at]


def _holding(batch: TextBatch, positions: Ints) -> Ints:
    """The tokens that characters at these positions are in."""
    return np.searchsorted(np.ascontiguousarray(batch.starts[:, 1]), positions, side="right") - 1


def _contractions(batch: TextBatch, apostrophes: Ints) -> Ints:
    """Tokens that end in n't, by the positions of their apostrophes."""
    codes, at = batch.codes, apostrophes
    at = at[(codes[at - 1] | 32 == ord("n")) & (codes[np.minimum(at + 1, codes.size - 1)] | 32 == ord("t"))]
    tokens = _holding(batch, at)
    return np.asarray(tokens[batch.stops[tokens, 1] == at + 2])


def _phrases(batch: TextBatch, phrases: tuple[str, ...]) -> Ints:
    """Tokens that any occurrence of a phrase touches."""
    if not len(batch) or not phrases:
        return np.empty(0, dtype=np.int64)
    pattern = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    found = [match.span() for match in re.finditer(pattern, decoded(batch.codes), re.IGNORECASE)]
    first, stop = np.array(found, dtype=np.int64).reshape(-1, 2).T
    begin = np.searchsorted(batch.stops[:, 1], first, side="right")
    return spans(begin, np.maximum(np.searchsorted(batch.starts[:, 1], stop), begin))


def negators_and_numbers(batch: TextBatch) -> Bools:
    """Tokens that are negators or numbers, (T,), of a batch fresh from `from_texts`."""
    return protect(batch, Protect()).protected


@cache
def _single_words(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Listed words that are one token, and the rest."""
    tokens = TextBatch.from_texts(words).tokens()
    single = tuple(w for w, t in zip(words, tokens, strict=True) if t == [w])
    return single, tuple(w for w in words if w not in single and w.strip())


def protect(batch: TextBatch, what: Protect) -> TextBatch:
    """The batch with the tokens that `what` names marked as protected.

    Must be asked of a batch fresh from `from_texts`: phrases are looked for in the text as it came.
    """
    protected = np.zeros(batch.kinds.size, dtype=bool)
    if what.numbers or what.negators:
        at, marks = _marked(batch.codes)
        if what.numbers:
            protected[_holding(batch, at[marks == _NUMBER])] = True
        if what.negators:
            protected[_holding(batch, at[marks == _NEGATOR])] = True
            protected[_contractions(batch, at[marks == _APOSTROPHE])] = True
            protected[_among(batch, NEGATORS)] = True
    return batch.protecting(protected | listed(batch, what.words))


def listed(batch: TextBatch, words: tuple[str, ...]) -> Bools:
    """Tokens that are one of `words`, or belong to a phrase among them, (T,), of a batch fresh from `from_texts`."""
    found = np.zeros(batch.kinds.size, dtype=bool)
    if words:
        single, phrases = _single_words(words)
        if single:
            found[_among(batch, single)] = True
        found[_phrases(batch, phrases)] = True
    return found
