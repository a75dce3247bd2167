"""PageRank (Brin & Page 1998) over the graphs of many rows at once.

Graphs of different rows have no edge in common, and sums run in the order of a row's own edges: a row's ranks are the
same to the last bit whatever stands beside it. For the same reason the number of rounds is fixed.
"""

from __future__ import annotations

from collections.abc import Callable

from bothways.seeding import F64

_DAMPING = 0.85
_ROUNDS = 40  # 0.85 ** 40 = 0.0015: the order of the ranks has long settled


def pagerank(spread: Callable[[F64], F64], peers: F64) -> F64:
    """The stationary rank of each node. `spread`: ranks handed on along the edges. `peers`: nodes of each's graph."""
    rank = 1.0 / peers
    for _ in range(_ROUNDS):
        rank = (1.0 - _DAMPING) / peers + _DAMPING * spread(rank)
    return rank
