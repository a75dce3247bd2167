"""Ray Data: the input side's transforms in parallel on CPU nodes, streamed to the worker that trains, in plan order.

Every rank runs the pipeline of its own share of the plan, once for all its epochs. The plan is a pure function of the
experiment, so there is no shuffle, no coordinator between the ranks, and nothing that block size, node count or a
restart could change.

What travels to a task are two numbers, the views it shall encode: rows and plan lie in the object store once, and texts
are put together where they are read. What comes back waits in the object store, at most `AHEAD_BYTES` of it, so that a
worker that trains never waits and a slow one never fills the memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ExecutionResources

from bothways.contracts import Encode, Views

TASK_CPUS = 0.5
"""CPUs one transform task asks for: two run beside each other on a core that a training worker shares."""
AHEAD_BYTES = 256 << 20
"""Encoded views of one execution that may lie in the object store: about two million."""
MODEL_ROWS = 64
"""Views of a block where a language model writes: some seconds of work, so that nothing looks as if it stood still."""
FIRST_ROWS = 256
"""Views of the first block, for which a trial waits; every block after it is twice as long, up to `block_rows`."""


@functools.cache
def quiet() -> None:
    """Once per process: blocks keep their order, little is made ahead, and there are no progress bars in the logs."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=AHEAD_BYTES)
    context.enable_progress_bars = False
    context.print_on_execution_start = False


@dataclass(frozen=True, kw_only=True)
class RayExecute:
    """`contracts.Execute` over Ray Data: blocks of up to `block_rows` views, each encoded by a task, read in order."""

    block_rows: int = 16384

    def __call__(self, views: Views, encode: Encode) -> Iterator[pa.Table]:
        quiet()
        writes = bool(getattr(encode, "loads_model", False))
        bounds = _bounds(views.num_rows, MODEL_ROWS if writes else self.block_rows)
        if not bounds:
            return
        blocks = [pa.table({"start": [start], "stop": [stop]}) for start, stop in bounds]
        # Not from_arrow: its tasks ask for a whole CPU each, only to count rows, and lanes may leave less than that.
        shared, cpus = ray.put((views, encode)), int(ray.cluster_resources()["CPU"])
        how: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None, "zero_copy_batch": True}
        if writes:
            # Actors: the process of a task may end when it has been idle for a second, and with it a loaded model. Half
            # as many as CPUs, since each holds a model.
            pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, cpus // 2))
            how |= {"fn_constructor_args": (shared,), "compute": pool}
        else:
            # One a CPU: each process of them has imported a tokenizer, and holds 200 MB.
            how["compute"] = ray.data.TaskPoolStrategy(size=max(1, cpus))
        encode_block = _Encoder if writes else functools.partial(_encoded, shared)
        encoded = ray.data.from_blocks(blocks).map_batches(encode_block, num_cpus=TASK_CPUS, **how)
        yield from encoded.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=2)


def _bounds(rows: int, block_rows: int) -> list[tuple[int, int]]:
    """The blocks of `rows` views, first short ones, then longer ones."""
    edges, size = [0], min(FIRST_ROWS, block_rows)
    while edges[-1] < rows:
        edges.append(min(rows, edges[-1] + size))
        size = min(2 * size, block_rows)
    return list(pairwise(edges))


@functools.lru_cache(maxsize=1)
def _work(shared: Any) -> tuple[Views, Encode]:
    """What the tasks of an execution share, read once per process: tables and arrays stay in the object store."""
    views, encode = ray.get(shared)
    return views, encode


def _encoded(shared: Any, block: pa.Table) -> pa.Table:
    views, encode = _work(shared)
    start, stop = block["start"][0].as_py(), block["stop"][0].as_py()
    return encode(views.slice(start, stop - start))


class _Encoder:
    """`_encoded` as an actor, which keeps what it has loaded."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared

    def __call__(self, block: pa.Table) -> pa.Table:
        return _encoded(self._shared, block)
