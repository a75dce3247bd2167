"""Texts in windows: where their tokens stand, and which of them have an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bothways.contracts import NO_LABEL
from bothways.task_contract import I64, Aligned

if TYPE_CHECKING:
    import pyarrow as pa

Places = list[dict[str, int]]
"""Of answers in a text, `start` and `stop` in characters."""
Span = tuple[int, int]
"""First and last token."""
NO_ANSWER: Span = (0, 0)


@dataclass(frozen=True)
class Windows:
    """M encoded rows that are windows of the second texts of N pairs.

    `inputs`: their columns. `firsts`, `counts`: each pair's first window and how many it has, (N,). `rows`: the pair of
    each window, (M,). `bounds`: where its tokens begin, (M + 1,). `starts`, `stops`: of every token, its characters in
    the second text; -1 for others.
    """

    inputs: Mapping[str, pa.Array]
    firsts: I64
    counts: I64
    rows: I64
    bounds: I64
    starts: I64
    stops: I64

    @classmethod
    def of(cls, aligned: Aligned, counts: I64) -> Windows:
        inside = aligned.texts == 1
        return cls(
            inputs=aligned.inputs,
            firsts=np.cumsum(counts) - counts,
            counts=counts,
            rows=np.repeat(np.arange(len(counts)), counts),
            bounds=np.asarray(aligned.inputs["input_ids"].offsets.to_numpy(), np.int64),
            starts=np.where(inside, aligned.starts, -1),
            stops=np.where(inside, aligned.stops, -1),
        )

    def __len__(self) -> int:
        """M."""
        return len(self.rows)

    def places(self, at: int) -> tuple[I64, I64]:
        """Where the tokens of window `at` stand."""
        part = slice(self.bounds[at], self.bounds[at + 1])
        return self.starts[part], self.stops[part]

    def labels(self, answers: Sequence[Places]) -> list[Span]:
        """The first and last token of each pair's first answer in each of its windows: the first token of all for no
        answer, no label where the answer is not whole."""
        begins = set(self.firsts.tolist())
        return [
            _span(*self.places(at), answers[row], goes_on=at not in begins) for at, row in enumerate(self.rows.tolist())
        ]

    def misses(self, at: int, answers: Places) -> bool:
        """Whether window `at` has nothing of any answer."""
        return not any(len(_overlapping(*self.places(at), answer)) for answer in answers)


def _span(starts: I64, stops: I64, answers: Places, *, goes_on: bool) -> Span:
    """`goes_on`: text comes before the window's."""
    if not answers:
        return NO_ANSWER
    answer = answers[0]
    found = _overlapping(starts, stops, answer)
    if not len(found) or stops[found[-1]] < answer["stop"]:
        return NO_LABEL, NO_LABEL
    at_the_edge = found[0] == np.flatnonzero(stops > starts)[0]
    if goes_on and at_the_edge and starts[found[0]] > answer["start"]:
        return NO_LABEL, NO_LABEL
    return int(found[0]), int(found[-1])


def _overlapping(starts: I64, stops: I64, place: Mapping[str, int]) -> I64:
    """The tokens that have characters of a place."""
    return np.flatnonzero((stops > place["start"]) & (starts < place["stop"]) & (stops > starts))
