"""Random swap (RS): words drawn with probability p change places in pairs; gaps and punctuation stay.

EDA (Wei & Zou 2019) swaps n random pairs one after the other; here the drawn words of a row are paired in order,
which needs no sequence. Where their number is odd, the word whose draw came next joins them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from bothways.input_side.transform import InputContext, Transform, draw
from bothways.registry import TRANSFORMS, Range
from bothways.text import TextBatch, true_at

_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)


@TRANSFORMS.register("random_swap")
class RandomSwap(Transform):
    """`p`: probability that a word is drawn to change places."""

    term: ClassVar[str] = "random swap (RS)"
    source: ClassVar[str] = "Wei & Zou 2019, EDA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.3)] = 0.1

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not len(batch):
            return batch
        drawn = draw(batch, context, self.p)
        taken = drawn.taken
        odd = np.flatnonzero(np.logical_xor.reduceat(taken, batch.offsets[:-1]))
        waiting = drawn.bits | ((taken | ~batch.free) * _NEVER)
        next_up = np.minimum.reduceat(waiting, batch.offsets[:-1])[odd]
        alone = next_up == _NEVER
        wanted = np.zeros(len(batch), dtype=np.uint64)
        wanted[odd[~alone]] = next_up[~alone]
        order = true_at(taken | (waiting == np.repeat(wanted, batch.sizes)))
        # Now every row has an even number, but for those in which all words were drawn: there the last one stays.
        order = np.delete(order, np.searchsorted(order, batch.offsets[odd[alone] + 1]) - 1)
        return batch.swapped(order[::2], order[1::2])
