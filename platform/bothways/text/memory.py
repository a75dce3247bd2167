"""What happens to memory that an array no longer needs."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST = 32 << 20  # glibc takes no more


@cache
def keep_freed_memory() -> None:
    """Once per process: glibc keeps up to 64 MB of freed arrays for the next ones, instead of giving each back to the
    system, after which every new one pays for its pages anew: a batch of texts takes twice as long then. Where the
    allocator is another one, nothing is done."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 2 * _LARGEST)
