"""Where sentences begin, in English and Chinese, for a whole batch at once.

A sentence ends with 。！？ wherever they stand, and with . ! ? … in front of white space or a Chinese character; quotes
and brackets that close behind them still belong to it. A full stop ends nothing after a title or an initial (`Mr. J.
Smith`), nor in front of a small letter, except in tokenised text, where it stands apart (`a film . it is`). A blank
line always ends one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from bothways.text.batch import TextBatch
from bothways.text.characters import END, IDEOGRAPH, PUNCTUATION, Bools, Bytes, Codes, Ints, decoded

_OTHER, _CLOSER, _OPENER, _WIDE, _STOP, _DOTS, _DOT = range(7)  # all from _WIDE on can end a sentence
_ROLES = {
    _CLOSER: "\"'”’)]}）】》〉」』〕］｝»",
    _OPENER: "“‘(（[【《〈「『〔［｛«",
    _WIDE: "。！？｡．",
    _STOP: "!?‼⁇⁈⁉؟۔।",
    _DOTS: "…",
    _DOT: ".",
}
_TITLES_TEXT = "mr mrs ms dr prof st rev gen sen rep gov capt lt col sgt hon vs fig vol e.g i.e cf approx"
_TITLES = frozenset(_TITLES_TEXT.split())
_LONGEST = 6  # letters of a title, dots included


@cache
def _roles() -> Bytes:
    """What each character is to a sentence, (0x10000,)."""
    table = np.zeros(0x10000, dtype=np.uint8)
    for role, characters in _ROLES.items():
        table[[ord(c) for c in characters]] = role
    return table


def sentences(batch: TextBatch) -> tuple[TextBatch, Ints]:
    """The first token of every sentence, (S,), sorted: each row's first token is one, also where a row has no other.

    The batch comes back with the same text, cut once more where a sentence ends inside a run of punctuation (`。“`).
    """
    marks = np.flatnonzero(batch.kinds == PUNCTUATION)
    codes, lengths = batch.words(marks)
    roles = np.take(_roles(), codes, mode="clip")
    edges = np.cumsum(lengths) - lengths
    ending = roles >= _WIDE
    has = np.logical_or.reduceat(ending, edges) if marks.size else np.empty(0, dtype=bool)
    if not has.any():
        return batch, _starts(batch, np.empty(0, dtype=np.int64))
    place = np.arange(roles.size)
    last = np.maximum.reduceat(np.where(ending, place, -1), edges)[has]
    stop = (edges + lengths)[has]
    # What follows the mark in its run: closers still belong to it, and the first thing that does not is at `cut`.
    foreign = np.append(np.where(~ending & (roles != _CLOSER), place, place.size), place.size)
    cut = np.minimum(np.minimum.accumulate(foreign[::-1])[::-1][last + 1], stop)
    inside = cut < stop
    opens = inside & (np.take(roles, np.minimum(cut, roles.size - 1)) == _OPENER) & (roles[last] == _WIDE)
    tokens, final = marks[has], roles[last]
    ends = opens | (~inside & _ends(batch, tokens, final, _dots(codes, last, edges[has])))
    batch, tokens = _cut(batch, tokens, np.where(opens, cut - edges[has], 0))
    return batch, _starts(batch, tokens[ends] + 1)


def _dots(codes: Codes, last: Ints, first: Ints) -> Bools:
    """Whether the mark at `last` of a run is one of several dots."""
    return np.asarray((last > first) & (codes[np.maximum(last - 1, 0)] == ord(".")))


def _ends(batch: TextBatch, tokens: Ints, final: Bytes, several: Bools) -> Bools:
    """Whether a sentence ends with these runs of punctuation, whose last mark is `final`."""
    gaps = batch.stops[:, 0] > batch.starts[:, 0]
    following = np.minimum(tokens + 1, batch.kinds.size - 1)
    chinese = batch.kinds[following] == IDEOGRAPH
    apart = gaps[following] | chinese | (batch.kinds[following] == END)
    dotted = (final == _DOT) | (final == _DOTS)
    several = several | (final == _DOTS)
    small = _is_small(batch, following)
    tokenised = gaps[tokens] & ~several
    quiet = dotted & ((small & ~tokenised) | ((final == _DOT) & ~several & ~gaps[tokens] & _is_title(batch, tokens)))
    return np.asarray((final == _WIDE) | (apart & ~quiet))


def _is_small(batch: TextBatch, tokens: Ints) -> Bools:
    """Whether these tokens begin with a small letter."""
    at = np.minimum(batch.starts[tokens, 1], batch.codes.size - 1)
    found = [character.islower() for character in decoded(batch.codes[at])]
    return np.asarray(np.array(found, dtype=bool) & (batch.kinds[tokens] != END))


def _is_title(batch: TextBatch, tokens: Ints) -> Bools:
    """Whether a title or an initial stands before these tokens, in the same row."""
    before = np.maximum(tokens - 1, 0)
    lengths = batch.stops[before, 1] - batch.starts[before, 1]
    short = np.flatnonzero((lengths <= _LONGEST) & batch.is_word[before] & (batch.kinds[before] != IDEOGRAPH))
    found = np.zeros(tokens.size, dtype=bool)
    for i in short.tolist():
        word = decoded(batch.codes[batch.starts[before[i], 1] : batch.stops[before[i], 1]])
        found[i] = word.lower() in _TITLES or (len(word) == 1 and word.isupper() and word != "I")
    return found


def _cut(batch: TextBatch, tokens: Ints, at: Ints) -> tuple[TextBatch, Ints]:
    """The batch with `tokens` cut behind their first `at` characters (0: left whole), and where `tokens` are now."""
    cuts = tokens[at > 0]
    if not cuts.size:
        return batch, tokens
    pieces = np.ones(batch.kinds.size, dtype=np.int64)
    pieces[cuts] = 2
    index = np.repeat(np.arange(pieces.size), pieces)
    starts, stops = batch.starts[index], batch.stops[index]
    new = cuts + np.arange(cuts.size)
    middle = batch.starts[cuts, 1] + at[at > 0]
    stops[new, 1] = starts[new + 1, 0] = stops[new + 1, 0] = starts[new + 1, 1] = middle
    moved = np.append(0, np.cumsum(pieces))
    cut = replace(
        batch,
        starts=starts,
        stops=stops,
        kinds=batch.kinds[index],
        protected=batch.protected[index],
        offsets=moved[batch.offsets],
    )
    return cut, moved[tokens]


def _starts(batch: TextBatch, firsts: Ints) -> Ints:
    """All tokens that begin a sentence: `firsts`, what follows a blank line, and every row's first token.

    What only closes (`'' )`) or only ends (`. . .`) begins nothing: it goes on with the sentence before it.
    """
    begins = np.zeros(batch.kinds.size + 1, dtype=bool)
    begins[firsts] = True
    breaks = np.cumsum(np.append(0, batch.codes == ord("\n")))
    begins[:-1] |= breaks[batch.stops[:, 0]] - breaks[batch.starts[:, 0]] > 1
    found = np.flatnonzero(begins[:-1])
    begins[found[_goes_on(batch, found)]] = False
    begins[batch.offsets[1:] - 1] = False
    begins[batch.offsets[:-1]] = True
    return np.flatnonzero(begins[:-1])


def _goes_on(batch: TextBatch, tokens: Ints) -> Bools:
    """Whether these tokens only close or end something. A straight double quote may open as well: it does not."""
    if not tokens.size:
        return np.empty(0, dtype=bool)
    codes, lengths = batch.words(tokens)
    roles = np.take(_roles(), codes, mode="clip")
    only = (roles != _OTHER) & (roles != _OPENER) & (codes != ord('"'))
    edges = np.cumsum(lengths) - lengths
    ends = lengths == 0
    closes = np.logical_and.reduceat(np.append(only, True), edges)
    return np.asarray(closes & ~ends)
