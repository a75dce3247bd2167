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
from bothways.text import TextBatch, ragged

_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)


@TRANSFORMS.register("random_swap")
class RandomSwap(Transform):
    """`p`: probability that a word is drawn to change places."""

    term: ClassVar[str] = "random swap (RS)"
    source: ClassVar[str] = "Wei & Zou 2019, EDA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.3)] = 0.1

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        drawn = draw(batch, context, self.p)
        taken = drawn.taken
        odd = np.flatnonzero(batch.per_row(taken) % 2)
        if odd.size:
            waiting = np.where(batch.free & ~taken, drawn.bits, _NEVER)
            next_up = np.minimum.reduceat(waiting, batch.offsets[:-1])[odd]
            wanted = np.full(len(batch), _NEVER)
            wanted[odd] = next_up
            joins = (waiting == np.repeat(wanted, batch.sizes)) & (waiting != _NEVER)
            taken = taken | joins
        order = np.flatnonzero(taken)
        first = np.searchsorted(order, batch.offsets)
        pairs = np.diff(first) // 2
        left = np.repeat(first[:-1], pairs) + 2 * ragged(np.zeros_like(pairs), pairs)
        return batch.swapped(order[left], order[left + 1])
