"""Sentence shuffling: the sentences of a text in another order, or some of them left out.

`permute`: each sentence is drawn with probability p, and the drawn ones of a row move round in a random cycle, so that
none of them stays; where only one is drawn, the one whose draw came next joins it. `drop`: each sentence is dropped
with probability p, but never one that holds a protected word, and never the last one with a word. The white space
between sentences stays where it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.input_side.transform import InputContext, Transform, again, chosen
from bothways.registry import TRANSFORMS, Choices, Range
from bothways.seeding import U64, streams
from bothways.text import END, Bools, Ints, TextBatch, ragged
from bothways.text.sentences import sentences

_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)


@TRANSFORMS.register("sentence_shuffle")
class SentenceShuffle(Transform):
    """`p`: probability that a sentence is drawn. `action`: what happens to those drawn."""

    term: ClassVar[str] = "sentence permutation and deletion"
    source: ClassVar[str] = "Lewis et al. 2020, BART"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.5)] = 0.3
    action: Annotated[Literal["permute", "drop"], Choices("permute", "drop")] = "permute"

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not len(batch) or self.p == 0.0:
            return batch
        cut, firsts = sentences(batch)
        counts = np.diff(np.searchsorted(firsts, cut.offsets))
        bits = streams(context.row_keys(batch), counts)
        p = self.p if context.strength is None else np.repeat(context.strength, counts) * self.p
        drawn = chosen(bits, p) & np.repeat(counts > 1, counts)
        if not drawn.any():
            return batch
        return (_permuted if self.action == "permute" else _dropped)(cut, firsts, bits, drawn)


def _permuted(batch: TextBatch, firsts: Ints, bits: U64, drawn: Bools) -> TextBatch:
    """Moves the drawn sentences of each row round in a random cycle."""
    rows = batch.rows_of(firsts)
    begin = np.searchsorted(rows, np.arange(len(batch)))
    alone = np.add.reduceat(drawn, begin, dtype=np.int64) == 1
    next_up = np.minimum.reduceat(np.where(drawn, _NEVER, bits), begin)
    at = np.flatnonzero(drawn | (alone[rows] & (bits == next_up[rows])))
    cycle = at[np.lexsort((again(bits[at], "order"), rows[at]))]
    changed, head = np.unique(rows[cycle], return_index=True)
    following = np.roll(cycle, -1)
    following[np.append(head[1:], cycle.size) - 1] = cycle[head]  # a row's last one is followed by its first
    order = np.arange(firsts.size)
    order[cycle] = following
    return _ordered(batch, firsts, order, changed)


def _ordered(batch: TextBatch, firsts: Ints, order: Ints, changed: Ints) -> TextBatch:
    """The sentence `order[i]` in place i, behind the gap of place i. `changed`: the rows that differ."""
    lengths = np.diff(np.append(firsts, batch.kinds.size))
    lengths[np.searchsorted(firsts, batch.offsets[1:], side="left") - 1] -= 1  # a row's end stays its end
    lengths = lengths[order]
    slots = np.flatnonzero(batch.kinds != END)
    index = np.arange(batch.kinds.size)
    index[slots] = ragged(firsts[order], lengths)
    starts, stops = batch.starts[index], batch.stops[index]
    filled = lengths > 0
    heads = slots[(np.cumsum(lengths) - lengths)[filled]]
    starts[heads, 0], stops[heads, 0] = batch.starts[firsts[filled], 0], batch.stops[firsts[filled], 0]
    marks = batch.changed.copy()
    marks[changed] = True
    kinds, protected = batch.kinds[index], batch.protected[index]
    return replace(batch, starts=starts, stops=stops, kinds=kinds, protected=protected, changed=marks)


def _dropped(batch: TextBatch, firsts: Ints, bits: U64, drawn: Bools) -> TextBatch:
    """Leaves the drawn sentences out: the one with the highest bits stays where none with a word would."""
    rows = batch.rows_of(firsts)
    begin = np.searchsorted(rows, np.arange(len(batch)))
    has_word = np.logical_or.reduceat(batch.is_word, firsts)
    drawn = drawn & ~np.logical_or.reduceat(batch.protected, firsts)
    emptied = ~np.logical_or.reduceat(has_word & ~drawn, begin)
    last = np.maximum.reduceat(np.where(drawn & has_word, bits, np.uint64(0)), begin)
    drawn = drawn & ~(emptied[rows] & (~has_word | (bits == last[rows])))
    dropped = np.repeat(drawn, np.diff(np.append(firsts, batch.kinds.size))) & (batch.kinds != END)
    return batch.without(dropped) if dropped.any() else batch
