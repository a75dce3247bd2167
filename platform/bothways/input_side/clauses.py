"""Long sentences divided where a clause with a subject of its own begins."""

from __future__ import annotations

from functools import cache

import numpy as np

from bothways.input_side.lookup import WordSet, fold
from bothways.input_side.sentences import Sentences, sentences, single_marks
from bothways.seeding import F64
from bothways.text import Bools, Ints, TextBatch, encoded

_SHORTEST = 5  # words: a clause with fewer stays where it is
_JOINS = "and but so yet"
_SUBJECTS = "i you he she it we they this that these those there the a an my your his her its our their"
_OPENS_ZH = (
    "但 但是 不过 而且 并且 所以 因此 然后 同时 另外 此外 可是 然而 于是 只是 还有 其次 最后 后来 结果 "
    "我 你 您 他 她 它 我们 他们 她们 它们 这 那 这个 那个 这些 这种 这样 这里 那里 整个 总之"
)
# The comma behind one of these holds both halves together.
_PAIRED_ZH = "虽然 虽 尽管 因为 由于 如果 要是 假如 只要 只有 即使 就算 不但 不仅 无论 不管 既然 当"
_COMMAS = encoded(",，;；")
_STOPS = {"en": ord("."), "zh": ord("。")}


@cache
def _listed(words: str) -> WordSet:
    return WordSet.of(words.split())


def divided(batch: TextBatch, language: str, longest: F64, active: Bools) -> TextBatch:
    """Sentences of more than `longest` words (R,), in rows that are `active` (R,), divided into shorter ones."""
    batch, found = sentences(batch)
    commas = _between_clauses(batch, found.only((found.words > longest[found.rows]) & active[found.rows]), language)
    if not commas.size:
        return batch
    after = commas + 1
    ands = after[_is(batch, after, "and") & ~batch.protected[after]] if language == "en" else after[:0]
    opens = np.where(np.isin(after, ands), after + 1, after)
    capital = _upper(batch, found.first[found.at(commas)]) & ~batch.protected[opens]
    raised = opens[capital]
    stops = np.full(commas.size, _STOPS[language], dtype=batch.codes.dtype)
    result = batch.replaced(commas, stops, np.ones(commas.size, dtype=np.int64))
    codes, lengths = batch.words(raised)
    starts = np.cumsum(lengths) - lengths
    letters = codes.copy()
    small = (codes[starts] >= ord("a")) & (codes[starts] <= ord("z"))
    letters[starts[small]] -= ord("a") - ord("A")
    result = result.replaced(raised, letters, lengths)
    dropped = np.zeros(batch.kinds.size, dtype=bool)
    dropped[ands] = True
    return result.without(dropped) if ands.size else result


def _between_clauses(batch: TextBatch, long: Sentences, language: str) -> Ints:
    """The commas and semicolons of long sentences that are to become full stops."""
    marks = single_marks(batch, _COMMAS)
    marks = marks[~batch.protected[marks]]
    of = long.at(marks)
    inside = (of >= 0) & (marks + 2 < long.stop[of]) if long.first.size else np.zeros(marks.size, dtype=bool)
    marks, of = marks[inside], of[inside]
    semicolon = np.isin(batch.codes[batch.starts[marks, 1]], encoded(";；"))
    if language == "en":
        opens = _is(batch, marks + 1, _JOINS) & _is(batch, marks + 2, _SUBJECTS)
    else:
        paired = np.append(0, np.cumsum(_is(batch, np.arange(batch.kinds.size), _PAIRED_ZH)))
        opens = _is(batch, marks + 1, _OPENS_ZH) & (paired[marks] == paired[long.first[of]])
    marks, of = marks[opens | semicolon], of[opens | semicolon]
    before = np.append(0, np.cumsum(batch.is_word))
    new = np.append(True, of[1:] != of[:-1])[: of.size]
    last = np.append(of[1:] != of[:-1], True)[: of.size]
    left = np.where(new, long.first[of], np.append(0, marks[:-1])[: of.size])
    right = np.where(last, long.stop[of], np.append(marks[1:], 0)[: of.size])
    whole = (before[marks] - before[left] >= _SHORTEST) & (before[right] - before[marks] >= _SHORTEST)
    return np.asarray(marks[whole])


def _is(batch: TextBatch, tokens: Ints, words: str) -> Bools:
    """Which tokens are one of these words."""
    result = batch.is_word[tokens]
    some = np.flatnonzero(result)
    result[some] = _listed(words).holds(*batch.words(tokens[some]))
    return result


def _upper(batch: TextBatch, tokens: Ints) -> Bools:
    codes = batch.codes[batch.starts[tokens, 1]]
    return np.asarray(fold(codes) != codes)
