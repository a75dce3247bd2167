"""Words that carry the label and must survive: negators, numbers, and what the user lists."""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from bothways.config import Protect
from bothways.input_side.lookup import WordSet
from bothways.text import IDEOGRAPH, LETTER, Bools, Ints, TextBatch, decoded, ragged

_NEGATORS = (
    "not no never none nothing neither nor nobody nowhere cannot without hardly scarcely barely rarely seldom nope "
    "nt dont doesnt didnt cant wont isnt arent wasnt werent wouldnt couldnt shouldnt hasnt havent hadnt aint"
)
NEGATORS = tuple(_NEGATORS.split())
NEGATORS_ZH = "不没無无非未别別莫勿毋弗否甭休"
NUMERALS_ZH = "〇零一二两兩三四五六七八九十百千万萬亿億"


def _first_letters(words: tuple[str, ...]) -> Bools:
    """Which of the first 256 code points begin one of these words; the last stands for all the others."""
    table = np.zeros(256, dtype=bool)
    for w in words:
        for first in (w[0].lower(), w[0].upper()):
            table[min(ord(first[0]), 255)] = True
    return table


@cache
def _lexicon(words: tuple[str, ...]) -> tuple[WordSet, Bools, int]:
    return WordSet.of(list(words)), _first_letters(words), max(map(len, words))


@cache
def _is_listed(characters: str) -> Bools:
    table = np.zeros(0x10000, dtype=bool)
    table[[ord(c) for c in characters]] = True
    return table


def _among(batch: TextBatch, words: tuple[str, ...]) -> Ints:
    """Tokens that are one of `words`, in any case. The first letter and the length rule out nearly all others."""
    lexicon, first_letters, longest = _lexicon(words)
    first = np.take(batch.codes, batch.starts[:, 1])
    maybe = np.flatnonzero(first_letters[np.minimum(first, 255)])
    maybe = maybe[(batch.lengths[maybe, 1] <= longest) & (batch.kinds[maybe] & 1 == 1)]
    return np.asarray(maybe[lexicon.holds(*batch.words(maybe))])


def _contractions(batch: TextBatch) -> Ints:
    """Tokens that end in n't."""
    ends = batch.starts[:, 1] + batch.lengths[:, 1]
    maybe = np.flatnonzero((batch.lengths[:, 1] >= 3) & np.isin(np.take(batch.codes, ends - 1), _codes("tT")))
    for back, letters in ((2, "'’"), (3, "nN")):
        maybe = maybe[np.isin(batch.codes[ends[maybe] - back], _codes(letters))]
    return maybe


@cache
def _codes(letters: str) -> tuple[int, ...]:
    return tuple(map(ord, letters))


def _holding(batch: TextBatch, characters: str) -> Ints:
    """Tokens that hold one of these Chinese characters."""
    if batch.codes.dtype == np.uint8:
        return np.empty(0, dtype=np.int64)
    words = np.flatnonzero(batch.kinds == IDEOGRAPH)
    codes, lengths = batch.words(words)
    hits = _is_listed(characters)[np.minimum(codes, 0xFFFF)]
    return words[np.repeat(np.arange(words.size), lengths)[hits]]


def _numbers(batch: TextBatch) -> Bools:
    """Words that begin or end with a digit: 7, 3.5, 1990s, covid19."""
    first = np.take(batch.codes, batch.starts[:, 1])
    last = np.take(batch.codes, batch.starts[:, 1] + batch.lengths[:, 1] - 1)
    digit = ((first >= 0x30) & (first <= 0x39)) | ((last >= 0x30) & (last <= 0x39))
    return np.asarray(digit & (batch.kinds == LETTER))


def _phrases(batch: TextBatch, phrases: tuple[str, ...]) -> Ints:
    """Tokens that any occurrence of a phrase touches."""
    if not len(batch) or not phrases:
        return np.empty(0, dtype=np.int64)
    text = decoded(batch.codes)
    pattern = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    spans = np.array([m.span() for m in re.finditer(pattern, text, re.IGNORECASE)], dtype=np.int64).reshape(-1, 2)
    starts = batch.starts[:, 1]  # in the order of the text
    first = np.searchsorted(starts + batch.lengths[:, 1], spans[:, 0], side="right")
    stop = np.searchsorted(starts, spans[:, 1], side="left")
    return ragged(first, np.maximum(stop - first, 0))


def _negators(batch: TextBatch) -> Ints:
    return np.concatenate([_among(batch, NEGATORS), _contractions(batch), _holding(batch, NEGATORS_ZH)])


def negators_and_numbers(batch: TextBatch) -> Bools:
    """Tokens that are negators or numbers, (T,)."""
    found = _numbers(batch)
    found[_negators(batch)] = True
    found[_holding(batch, NUMERALS_ZH)] = True
    return found


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
        marks |= _numbers(batch)
        marks[_holding(batch, NUMERALS_ZH)] = True
    if what.negators:
        marks[_negators(batch)] = True
    single, phrases = _single_words(what.words)
    if single:
        marks[_among(batch, single)] = True
    marks[_phrases(batch, phrases)] = True
    return batch.protecting(marks)
