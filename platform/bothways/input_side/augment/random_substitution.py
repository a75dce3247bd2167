"""Random substitution: words drawn with probability p become words of the training rows.

`uniform`: every word is as likely to be drawn, replacements come by frequency (unigram noising, Xie et al. 2017).
`tfidf`: uninformative words are drawn more often and replace more often (UDA, Xie et al. 2020, appendix):
p_i = min(1, p (C - idf_i) / Z), C the row's largest idf and Z the row's mean of C - idf_i, and replacements in
proportion to max S - S(w), S(w) = count(w) idf(w). UDA's code multiplies idf by the term's frequency in the row; in a
sentence that is 1 for nearly every word, and it is left out here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.input_side.lookup import token_hashes
from bothways.input_side.statistics import Statistics
from bothways.input_side.transform import InputContext, Transform, again, draw
from bothways.registry import TRANSFORMS, Choices, Range
from bothways.seeding import F64
from bothways.text import TextBatch


@TRANSFORMS.register("random_substitution")
class RandomSubstitution(Transform):
    """`p`: share of the words replaced. `weighting`: which words, and by which."""

    term: ClassVar[str] = "random substitution (unigram noising, TF-IDF word replacement)"
    source: ClassVar[str] = "Xie et al. 2020, UDA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.3)] = 0.1
    weighting: Annotated[Literal["uniform", "tfidf"], Choices("uniform", "tfidf")] = "uniform"

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not len(batch) or self.p == 0:
            return batch
        statistics = context.vocabulary(self.name)
        informed = self.weighting == "tfidf"
        drawn = draw(batch, context, _by_idf(batch, statistics, self.p) if informed else self.p)
        tokens = drawn.tokens
        lottery = statistics.uninformative if informed else statistics.unigrams
        return batch.replaced(tokens, *statistics.words(lottery.draw(again(drawn.bits[tokens], "word"))))


def _by_idf(batch: TextBatch, statistics: Statistics, p: float) -> F64:
    """Each token's probability, (T,); its mean over the free words of a row is p, but for the cut at 1."""
    chance = np.zeros(batch.kinds.size)
    tokens = np.flatnonzero(batch.free)
    if not tokens.size:
        return chance
    number = statistics.index.find(token_hashes(batch, tokens))
    unseen = np.log(max(1, statistics.rows))  # the rarest there are
    idf = np.where(number < 0, unseen, np.take(statistics.idf, number, mode="clip"))
    first = np.unique(np.searchsorted(tokens, batch.offsets[:-1]))
    first = first[first < tokens.size]
    counts = np.diff(first, append=tokens.size)
    slack = np.repeat(np.maximum.reduceat(idf, first), counts) - idf
    total = np.add.reduceat(slack, first)
    even = total <= 0
    scale = p * counts / np.where(even, 1.0, total)
    chance[tokens] = np.minimum(1.0, np.repeat(scale, counts) * slack + np.repeat(p * even, counts))
    return chance
