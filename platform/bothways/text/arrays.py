"""Array arithmetic that a batch is made of: what spans gather, and where a mask is set."""

from __future__ import annotations

import numpy as np

from bothways.text.characters import Bools, Codes, Ints

_COUNTED = np.arange(1 << 18)  # to read numbers costs less than to count anew
_COUNTED.flags.writeable = False
_SPARSE, _DENSE = 0.03, 0.1  # shares of a mask


def ragged(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, … for `length` numbers, span after span: the flat index that gathers K spans.

    `starts`, `lengths`: int64 (K,). Returns int64 (sum of lengths,)."""
    shift = starts - np.cumsum(lengths)
    shift += lengths
    index = np.repeat(shift, lengths)
    index += _COUNTED[: index.size] if index.size <= _COUNTED.size else np.arange(index.size)
    return index


def spans(starts: Ints, stops: Ints) -> Ints:
    """`ragged` by where each span stops: `starts`, `stops` (K,)."""
    return ragged(starts, stops - starts)


def gathered(codes: Codes, starts: Ints, stops: Ints) -> Codes:
    """The code points of K spans, one after the other. `starts`, `stops` (K,), inside `codes`: unchecked."""
    found: Codes = np.take(codes, spans(starts, stops), mode="wrap")  # no span is outside: the cheapest way to say so
    return found


def true_at(mask: Bools) -> Ints:
    """`np.flatnonzero`, which goes through masks of which less than a tenth is set from one place to the next. Where
    these are near, that takes up to three times as long as its way through denser ones, so such a mask is made one."""
    hits = np.count_nonzero(mask)
    if not _SPARSE * mask.size < hits <= _DENSE * mask.size:
        return np.flatnonzero(mask)
    denser = np.ones(mask.size + mask.size // 8 + 1, dtype=bool)
    denser[: mask.size] = mask
    return np.flatnonzero(denser)[:hits]
