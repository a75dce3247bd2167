"""Random deletion (RD): each word is dropped with probability p, never the last one of a row.

EDA (Wei & Zou 2019). EDA's code strips everything but a-z first, and returns a random word of an emptied row; here
punctuation stays, and an emptied row keeps one of its own words.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from bothways.input_side.transform import InputContext, Transform, draw
from bothways.registry import TRANSFORMS, Range
from bothways.text import TextBatch, ragged


@TRANSFORMS.register("random_deletion")
class RandomDeletion(Transform):
    """`p`: probability that a word is dropped."""

    term: ClassVar[str] = "random deletion (RD)"
    source: ClassVar[str] = "Wei & Zou 2019, EDA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.3)] = 0.1

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not len(batch):
            return batch
        drawn = draw(batch, context, self.p)
        dropped = drawn.taken
        first = batch.offsets[:-1]
        wordless = np.flatnonzero(~np.logical_or.reduceat(batch.is_word & ~dropped, first))
        if wordless.size:
            sizes = batch.sizes[wordless]
            tokens = ragged(first[wordless], sizes)
            bits = np.where(dropped[tokens], drawn.bits[tokens], np.uint64(0))
            highest = np.maximum.reduceat(bits, np.cumsum(sizes) - sizes)
            dropped[tokens[bits == np.repeat(highest, sizes)]] = False
        return batch.without(dropped)
