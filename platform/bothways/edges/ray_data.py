"""Ray Data: the input side's transforms in parallel on CPU nodes, streamed to the worker that trains, in plan order.

Every rank runs the pipeline of its own share of the plan. The plan is a pure function of the experiment, so there is no
shuffle, no coordinator between the ranks, and nothing that block size, node count or a restart could change.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import ray
import ray.data

from bothways.contracts import Encode

TASK_CPUS = 0.5
"""CPUs one transform task asks for: two run beside each other on a core that a training worker shares."""


@functools.cache
def quiet() -> None:
    """Once per process: blocks keep their order, and no progress bars in the logs."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False


@dataclass(frozen=True, kw_only=True)
class RayExecute:
    """`contracts.Execute` over Ray Data: blocks of `block_rows` views, each encoded by a task, read in order."""

    block_rows: int = 2048

    def __call__(self, views: pa.Table, encode: Encode) -> Iterator[pa.Table]:
        quiet()
        if views.num_rows == 0:
            return
        blocks = [views.slice(start, self.block_rows) for start in range(0, views.num_rows, self.block_rows)]
        # Not from_arrow: its tasks ask for a whole CPU each, only to count rows, and lanes may leave less than that.
        encoded = ray.data.from_blocks(blocks).map_batches(
            encode, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS, zero_copy_batch=True
        )
        yield from encoded.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=2)
