"""Counter-based randomness: a draw is a pure function of (seed, epoch, row, …, slot), never of what was drawn before.

Batches, blocks, workers and resumption therefore cannot change a row's result. The mixer is SplitMix64's finaliser
(Steele, Lea & Flood 2014), applied once per absorbed counter, vectorised over rows.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_STEPS = np.arange(1, (1 << 16) + 1, dtype=np.uint64) * _GOLDEN  # to read them costs less than to count anew
_STEPS.flags.writeable = False


def _mix(state: U64) -> None:
    """The generator's output function, in place."""
    shifted = state >> np.uint64(30)
    state ^= shifted
    state *= _M1
    state ^= np.right_shift(state, np.uint64(27), out=shifted)
    state *= _M2
    state ^= np.right_shift(state, np.uint64(31), out=shifted)


def word(value: int | str) -> np.uint64:
    """A 64-bit word for a seed, a counter or a name."""
    if isinstance(value, str):
        return np.uint64(int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little"))
    return np.uint64(value & 0xFFFFFFFFFFFFFFFF)


def keys(*parts: int | str | npt.NDArray[np.integer]) -> U64:
    """One 64-bit key per row from counters absorbed in order.

    `parts`: ints, names, or integer arrays that broadcast to shape (N,). Returns uint64 of shape (N,), or (1,)
    when every part is a scalar.
    """
    state: U64 = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            absorbed = part.astype(np.uint64) if isinstance(part, np.ndarray) else word(part)
            state = state ^ absorbed
            state += _GOLDEN
            _mix(state)
    return state


def uniforms(row_keys: U64, slot: int | str | npt.NDArray[np.integer] = 0) -> F64:
    """Uniforms in [0, 1) of shape (N,), one for each key, 53 bits; another `slot` gives an independent draw."""
    bits = keys(row_keys, slot)
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def streams(row_keys: U64, counts: npt.NDArray[np.int64]) -> U64:
    """The first `counts[i]` outputs of the SplitMix64 generator seeded with `row_keys[i]`, row after row: 64 random
    bits each, (sum of counts,). The j-th of a row depends on its key and j only."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if counts.size else 0
    with np.errstate(over="ignore"):
        starts = (ends - counts).astype(np.uint64)
        state = np.repeat(row_keys - _GOLDEN * starts, counts)
        state += _STEPS[:total] if total <= _STEPS.size else np.arange(1, total + 1, dtype=np.uint64) * _GOLDEN
        _mix(state)
    return state


def below(bits: U64, n: int | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Integers in [0, n) from 64 random bits each; `n` below 2**32 (Lemire's multiply-shift, without rejection)."""
    bound = n.astype(np.uint64) if isinstance(n, np.ndarray) else np.uint64(n)
    return np.asarray(((bits >> np.uint64(32)) * bound >> np.uint64(32)).astype(np.int64))


def permutation(n: int, *parts: int | str) -> npt.NDArray[np.int64]:
    """A permutation of range(n) that depends on `parts` only."""
    draws = keys(*parts, np.arange(n, dtype=np.uint64))
    return np.argsort(draws, kind="stable").astype(np.int64)


def integer(*parts: int | str) -> int:
    """A non-negative 63-bit integer from `parts`, for seeding generators of other libraries."""
    return int(keys(*parts)[0] >> np.uint64(1))
