"""Where a span of a text is after edits: an answer, or a labelled name, moves with its characters or is given up."""

from __future__ import annotations

import numpy as np

from bothways.text.batch import TextBatch
from bothways.text.characters import Bools, Ints


def moved(batch: TextBatch, rows: Ints, starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """Where spans of the texts that came in are in `batch.texts()`, (K,) each; -1 and -1 for what was cut or changed.

    Span i is characters `starts[i]` up to `stops[i]` of row `rows[i]`; an empty one is given up. Edits keep no books
    for this: a character that is still there is at its place in `batch.codes`. What became of the spans of a text that
    was rewritten as a whole is not known: they are given up.
    """
    if not rows.size:
        return starts, stops
    lost = np.zeros(rows.shape, dtype=bool)
    if batch.earlier is not None:
        starts, stops = moved(batch.earlier, rows, starts, stops)
        lost = (starts < 0) | ~_same(batch.earlier.texts(), batch)[rows]
    piece_starts, piece_stops, runs = batch.pieces(batch.starts, batch.stops, batch.kinds, batch.offsets)
    run_starts, run_stops = piece_starts[runs], piece_stops[np.append(runs[1:], piece_stops.size) - 1]
    order = np.lexsort((run_stops, run_starts))  # many may begin with the space of codes[0]: the longest counts
    order = order[(run_starts < run_stops)[order]]
    lengths = np.fromiter(map(len, batch.originals), dtype=np.int64, count=len(batch))
    first = np.cumsum(lengths + 1) - lengths  # codes[0] is no row's, and a separator follows each
    begin, end = first[rows] + starts, first[rows] + stops
    run = order[np.maximum(np.searchsorted(run_starts[order], begin, side="right") - 1, 0)]
    lost |= (begin < run_starts[run]) | (end > run_stops[run]) | (begin == end)
    places = np.append(0, np.cumsum(piece_stops - piece_starts))  # of each piece in all texts, one after the other
    to = places[runs[run]] - run_starts[run] + begin - places[2 * batch.offsets[rows]]
    return np.where(lost, -1, to), np.where(lost, -1, to + stops - starts)


def _same(texts: list[str], batch: TextBatch) -> Bools:
    """The rows that were not rewritten, (R,)."""
    return np.array([new == old for new, old in zip(batch.originals, texts, strict=True)])
