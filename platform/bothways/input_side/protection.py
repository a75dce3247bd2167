"""Words that carry the label and must survive: negators, numbers, and what the user lists."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bothways.config import Protect
from bothways.input_side.lookup import WordSet
from bothways.text import Bools, Ints, TextBatch, decoded, spans

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
    first, last = (np.array([ord(w[at]) for w in variants]) for at in (0, -1))
    shapes = np.zeros(0x4000, dtype=bool)
    shapes[_shape(first, last, np.array([len(w) for w in variants]))] = True
    return WordSet.of(list(words)), shapes


def _shape(first: npt.NDArray[Any], last: npt.NDArray[Any], lengths: Ints) -> Ints:
    """First letter, last letter and length in 14 bits: rules out nearly every word that is not listed. The low five
    bits of a Latin letter do not depend on its case."""
    shape = lengths & 15
    for codes in (last, first):
        shape <<= 5
        shape |= codes & codes.dtype.type(31)
    return shape


def _among(batch: TextBatch, words: tuple[str, ...]) -> Ints:
    """Words of the batch that are one of `words`, in any case."""
    lexicon, shapes = _lexicon(words)
    starts, stops = batch.starts[:, 1], batch.stops[:, 1]
    shape = _shape(np.take(batch.codes, starts), np.take(batch.codes, stops - 1), stops - starts)
    maybe = np.flatnonzero(np.take(shapes, shape) & batch.is_word)
    return np.asarray(maybe[lexicon.holds(*batch.words(maybe))])


def _at(batch: TextBatch, positions: Ints) -> Ints:
    """The tokens at these positions of a batch fresh from `from_texts`."""
    return np.searchsorted(batch.starts[:, 1], positions, side="right") - 1


def _contractions(batch: TextBatch) -> Ints:
    """Tokens that end in n't."""
    codes = batch.codes
    mark = codes == 0x27
    if codes.dtype != np.uint8:
        mark |= codes == 0x2019
    at = np.flatnonzero(mark)
    at = at[(codes[at - 1] | 32 == ord("n")) & (codes[np.minimum(at + 1, codes.size - 1)] | 32 == ord("t"))]
    tokens = _at(batch, at)
    return np.asarray(tokens[batch.stops[tokens, 1] == at + 2])


@cache
def _is_listed(characters: str) -> Bools:
    table = np.zeros(0x10000, dtype=bool)
    table[[ord(c) for c in characters]] = True
    return table


def _holding(batch: TextBatch, characters: str) -> Ints:
    """Tokens that hold one of these Chinese characters."""
    if batch.codes.dtype == np.uint8:
        return np.empty(0, dtype=np.int64)
    return _at(batch, np.flatnonzero(np.take(_is_listed(characters), batch.codes, mode="clip")))


def _numbers(batch: TextBatch) -> Ints:
    """Words that hold a digit: 7, 3.5, 1990s, covid19; and Chinese numerals."""
    digits = _at(batch, np.flatnonzero(batch.codes - batch.codes.dtype.type(0x30) < 10))
    return np.concatenate([digits, _holding(batch, NUMERALS_ZH)])


def _phrases(batch: TextBatch, phrases: tuple[str, ...]) -> Ints:
    """Tokens that any occurrence of a phrase touches."""
    if not len(batch) or not phrases:
        return np.empty(0, dtype=np.int64)
    pattern = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    found = [match.span() for match in re.finditer(pattern, decoded(batch.codes), re.IGNORECASE)]
    first, stop = np.array(found, dtype=np.int64).reshape(-1, 2).T
    begin = np.searchsorted(batch.stops[:, 1], first, side="right")
    return spans(begin, np.maximum(np.searchsorted(batch.starts[:, 1], stop), begin))


def _negators(batch: TextBatch) -> Ints:
    return np.concatenate([_among(batch, NEGATORS), _contractions(batch), _holding(batch, NEGATORS_ZH)])


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
    marks = np.zeros(batch.kinds.size, dtype=bool)
    if what.numbers:
        marks[_numbers(batch)] = True
    if what.negators:
        marks[_negators(batch)] = True
    if what.words:
        single, phrases = _single_words(what.words)
        if single:
            marks[_among(batch, single)] = True
        marks[_phrases(batch, phrases)] = True
    return batch.protecting(marks)
