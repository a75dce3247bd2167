"""Where pieces begin: rules over the classes of neighbouring characters, applied to a whole batch at once."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bothways.errors import UserError
from bothways.text.characters import (
    END,
    IDEOGRAPH,
    JOINER,
    KIND,
    LETTER,
    MARK,
    NUMBER_JOINER,
    PUNCTUATION,
    SPACE,
    SYMBOL,
    ZWJ,
    Bools,
    Bytes,
    Codes,
    Ints,
    classes_of,
)

Segmentation = Literal["character", "word"]


def beginnings(joined: str, codes: Codes, classes: Bytes, segmentation: Segmentation) -> Bools:
    """Settles the classes of marks and joiners; True where character i + 1 begins a new piece, (N - 1,)."""
    if codes.dtype == np.uint8:
        _join(classes, codes)
        return np.asarray(classes[1:] != classes[:-1])
    glued = _glue_marks(classes)
    _join(classes, codes)
    begins = classes[1:] != classes[:-1]
    begins |= (classes[1:] == IDEOGRAPH) | (classes[1:] == SYMBOL)
    if segmentation == "word":
        begins[_jieba_inner(joined, classes) - 1] = False
    if glued is not None:
        begins &= ~glued[1:]
    return np.asarray(begins)


def _glue_marks(classes: Bytes) -> Bools | None:
    """Gives marks (accents, modifiers, joiners) the class of what they follow; True where no word may begin."""
    marks = np.flatnonzero(classes >= MARK)
    if not marks.size:
        return None
    joiners = classes == ZWJ
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
    at = np.flatnonzero((classes[:-1] > KIND) & (classes[1:] == LETTER))  # a joiner before a letter: few
    before = classes[at - 1]
    numeric = classes[at] == NUMBER_JOINER
    inner = (before == LETTER) & (~numeric | (_is_digit(codes[at - 1]) & _is_digit(codes[at + 1])))
    far = [classes[np.minimum(at + step, classes.size - 1)] != LETTER for step in (2, 3)]
    opens = ((codes[at] == 0x27) | (codes[at] == 0x2019)) & ((before == SPACE) | (before == END))
    joined = inner | (opens & (far[0] | far[1]))  # the second: clitics, an apostrophe and at most two letters
    np.bitwise_and(classes, KIND, out=classes)
    classes[at[joined]] = LETTER


def merging(codes: Codes, starts: Ints, stops: Ints, kinds: Bytes, at: Ints) -> Ints:
    """Of the tokens `at`, which have come to stand right behind another one: those that would be read as one word with
    it, or would make one word of their neighbours (26号.12天 without 号 and 天 is no 26.12)."""
    here, before = kinds[at], kinds[at - 1]
    merged = (here == LETTER) & (before == LETTER)
    for mark, kind in ((at - 1, before), (at, here)):
        some = np.flatnonzero(kind == PUNCTUATION)
        if some.size:
            merged[some] |= _joins(codes, starts, stops, kinds, mark[some])
    return np.asarray(at[merged])


def _joins(codes: Codes, starts: Ints, stops: Ints, kinds: Bytes, mark: Ints) -> Bools:
    """Whether these tokens are marks that make one word of the two beside them."""
    before, behind = mark - 1, np.minimum(mark + 1, kinds.size - 1)
    between = (kinds[before] == LETTER) & (kinds[behind] == LETTER) & (stops[mark, 1] - starts[mark, 1] == 1)
    between &= (starts[mark, 0] == stops[mark, 0]) & (starts[behind, 0] == stops[behind, 0])
    joiner = classes_of(codes[starts[mark, 1]])
    numeric = _is_digit(codes[stops[before, 1] - 1]) & _is_digit(codes[starts[behind, 1]])
    return np.asarray(between & ((joiner == JOINER) | ((joiner == NUMBER_JOINER) & numeric)))


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
