"""The sentences of a batch as spans of tokens; in rows that have only one, its clauses where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.text import PUNCTUATION, Bools, Codes, Ints, TextBatch, encoded
from bothways.text.sentences import sentences as beginnings

COMMAS = encoded(",，;；、")


@dataclass(frozen=True, eq=False)
class Sentences:
    """S sentences, row after row. `first`, `stop`: token spans, ends of rows left out. `rows`, `words`: each's row and
    its number of words."""

    first: Ints
    stop: Ints
    rows: Ints
    words: Ints

    def at(self, tokens: Ints) -> Ints:
        """The sentences that these tokens are in."""
        return np.searchsorted(self.first, tokens, side="right") - 1

    def only(self, chosen: Bools) -> Sentences:
        return Sentences(self.first[chosen], self.stop[chosen], self.rows[chosen], self.words[chosen])


def sentences(batch: TextBatch, clauses: bool = False) -> tuple[TextBatch, Sentences]:
    """The sentences of every row that is not empty, and the batch they are of: the same text, cut once more where a
    sentence ends inside a run of punctuation. `clauses`: commas and semicolons divide rows of one sentence."""
    batch, first = beginnings(batch)
    if clauses and first.size:
        rows = batch.rows_of(first)
        single = np.bincount(rows, minlength=len(batch)) == 1
        commas = single_marks(batch, COMMAS)
        first = np.union1d(first, commas[single[batch.rows_of(commas)]] + 1)
    first = first[first < batch.offsets[batch.rows_of(first) + 1] - 1]
    rows = batch.rows_of(first)
    stop = np.minimum(np.append(first[1:], batch.kinds.size), batch.offsets[rows + 1] - 1)
    before = np.append(0, np.cumsum(batch.is_word))
    return batch, Sentences(first, stop, rows, before[stop] - before[first])


def single_marks(batch: TextBatch, marks: Codes) -> Ints:
    """Tokens that are one of these marks and nothing else."""
    tokens = np.flatnonzero(batch.kinds == PUNCTUATION)
    tokens = tokens[batch.stops[tokens, 1] - batch.starts[tokens, 1] == 1]
    return np.asarray(tokens[np.isin(batch.codes[batch.starts[tokens, 1]], marks)])
