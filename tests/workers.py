"""Workers under DDP, without Ray: real processes, the gloo backend, a file to meet at."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

PRELOADED = ["bothways.training.trial", "transformers.models.bert.modeling_bert", "tests.workers"]
"""What takes longest to import, once for the workers of all tests."""


class Gloo:
    """A `Collective` over the default process group."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def wrap(self, model: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model)

    def sum(self, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total


def spawned(world: int, work: Callable[..., Any], *arguments: Any, directory: Path) -> list[Any]:
    """What `work(collective, directory, *arguments)` gives in each of `world` new processes, in the order of ranks."""
    directory.mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    given = [(rank, world, work, directory, arguments) for rank in range(world)]
    processes = [context.Process(target=_worker, args=each) for each in given]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=600)
        assert process.exitcode == 0
    return [torch.load(directory / f"found-{rank}", weights_only=False) for rank in range(world)]


def _worker(rank: int, world: int, work: Callable[..., Any], directory: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    meet, patience = f"file://{directory}/meet", timedelta(seconds=300)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world, timeout=patience)
    torch.save(work(Gloo(), directory, *arguments), directory / f"found-{rank}")
    dist.destroy_process_group()
