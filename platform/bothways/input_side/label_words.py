"""Words that carry the label, found from labelled training rows: those that one label's rows have and others do not.

Of each word the log-odds ratio between the rows of a label and all others (see `log_odds`), the highest over labels.
Stop words, negators and numbers count like all others: in questions it is `who` and `where` that tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bothways.input_side.log_odds import log_odds
from bothways.input_side.lookup import HashIndex, WordSet, fold, word_hashes
from bothways.seeding import F64, U64
from bothways.text import Segmentation, TextBatch

_PRIOR = 0.1
"""α_0 as a share of all words. With a hundredth, as for large corpora, a word of few rows that stands with one label
only would come behind frequent ones that hardly differ."""


@dataclass(frozen=True, eq=False)
class LabelWords:
    """W words that speak for some label, in any case, those that say most first; picklable.

    `hashes` (W,). `covered` (W,): the share of all running words that a word and those before it make up.
    """

    hashes: U64
    covered: F64

    @classmethod
    def of(cls, texts: Sequence[str], labels: npt.NDArray[np.int64], segmentation: Segmentation) -> LabelWords:
        """`labels` (N,): the class of each text, any integers."""
        batch = TextBatch.from_texts(texts, None, segmentation)
        tokens = np.flatnonzero(batch.is_word)
        codes, lengths = batch.words(tokens)
        hashes, which = np.unique(word_hashes(fold(codes), lengths), return_inverse=True)
        if not hashes.size:
            return cls(hashes, np.empty(0))
        of_token = labels[batch.rows_of(tokens)]
        counts = np.bincount(which, minlength=hashes.size)
        z = np.full(hashes.size, -np.inf)
        for label in np.unique(of_token).tolist():
            here = np.bincount(which[of_token == label], minlength=hashes.size)
            np.maximum(z, log_odds(here, counts - here, _PRIOR), out=z)
        order = np.argsort(-z, kind="stable")
        order = order[z[order] > 0]
        return cls(hashes[order], np.cumsum(counts[order]) / counts.sum())

    def first(self, share: float) -> WordSet:
        """The words that say most, as many as make up at most `share` of the running words."""
        return WordSet(HashIndex.of(self.hashes[: np.searchsorted(self.covered, share, side="right")]))
