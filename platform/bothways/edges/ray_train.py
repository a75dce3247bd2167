"""Ray Train: lanes. A lane is one long-lived group of workers (DDP inside) through which trials stream.

A cold trial pays for processes, imports and a process group (20 to 35 s each on two cores); in a lane it pays for its
training. Lanes end by returning, never by being torn down from outside, so their resources always come back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from bothways.config import Run
from bothways.edges.ray_cluster import LANE_THREAD, gpus_per_worker, lane_count
from bothways.errors import one_line

LANE_FAILURES = 12
"""Restarts of one lane's worker group before the lane is given up (each trial has its own, smaller cap)."""


def _work(config: Mapping[str, Any]) -> None:
    from bothways.edges.lane import work  # in the worker: a controller that unpickles this imports no model

    work(config)


class Lanes:
    """The lanes of one sweep, each driven by a thread. Use as a context manager: leaving it ends them all."""

    def __init__(self, hub: Any, dataset: Any, run: Run, storage: Path) -> None:
        self._hub = hub
        self._run = run
        self._storage = storage
        self._dataset = dataset
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(lane,), name=f"{LANE_THREAD}{lane}", daemon=True)
            for lane in range(lane_count(run))
        ]

    def __len__(self) -> int:
        return len(self._threads)

    def __enter__(self) -> Lanes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End the lanes. One that is in the middle of a trial when an error or Ctrl-C comes is not waited for long."""
        self._closing.set()
        said = error is not None and not isinstance(error, KeyboardInterrupt)
        ray.get(self._hub.close.remote(one_line(error) if error and said else ""))
        until = time.monotonic() + (60 if error is None else 5)
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _trainer(self, lane: int) -> ray.train.torch.TorchTrainer:
        gpus = gpus_per_worker(self._run)
        resources = {"CPU": self._run.cpus_per_worker} | ({"GPU": gpus} if gpus else {})
        return ray.train.torch.TorchTrainer(
            _work,
            train_loop_config={
                "hub": self._hub,
                "lane": lane,
                "dataset": self._dataset,
                "threads": self._run.threads,
                "cold": self._run.execution == "cold",
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=self._run.workers, use_gpu=bool(gpus), resources_per_worker=resources
            ),
            run_config=ray.train.RunConfig(
                name=f"lane-{lane}",
                storage_path=str(self._storage / "lanes"),
                failure_config=ray.train.FailureConfig(max_failures=LANE_FAILURES, controller_failure_limit=3),
            ),
        )

    def _drive(self, lane: int) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._trainer(lane).fit()
            except Exception as error:
                failures += 1
                if not self._closing.is_set():
                    ray.get(self._hub.lane_failed.remote(lane, one_line(error)))
                if failures == 2:
                    return
            else:
                if self._run.execution == "warm":
                    return
