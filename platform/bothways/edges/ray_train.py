"""Ray Train: lanes. A lane is one long-lived group of workers (DDP inside) through which trials stream.

A cold trial pays for processes, imports and a process group (20 to 35 s each on two cores); in a lane it pays for its
training. Lanes end by returning, never by being torn down from outside, so their resources always come back.

There is one rule for everything that can happen to a lane: keep as many as there should be. Whatever makes one end (it
failed, its node was lost, it has run as many trials as it may), a new worker group takes its place if the cluster has
room for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray
import ray.train
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from bothways.config import Run
from bothways.edges.ray_cluster import LANE_THREAD, gpus_per_worker, lane_count
from bothways.errors import UserError, one_line

LANE_FAILURES = 6
"""Failures of a lane in a row, each within `YOUNG_S` of its start, before it is given up. A trial has its own cap."""
YOUNG_S = 300.0
POLL_S = 2.0
"""How often the number of lanes is compared with what the cluster holds."""


def _work(config: Mapping[str, Any]) -> None:
    from bothways.edges.lane import work  # in the worker: a controller that unpickles this imports no model

    work(config)


class Lanes:
    """The lanes of one sweep. Use as a context manager: leaving it ends them all.

    `len()` is how many there should be: `run.lanes`, or what the cluster holds at this moment.
    `larger`: the same data with more training rows, by their number, for experiments whose `data.splits.train` it is.
    """

    def __init__(
        self, hub: Any, dataset: Any, run: Run, storage: Path, larger: Mapping[int, Any] = MappingProxyType({})
    ) -> None:
        self._hub = hub
        self._run = run
        self._storage = storage
        self._dataset = dataset
        self._larger = dict(larger)
        self._wanted = lane_count(run)
        self._driven: dict[int, threading.Thread] = {}
        self._failures: dict[int, int] = {}
        self._why = ""
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="lanes", daemon=True)

    def __len__(self) -> int:
        return self._wanted

    def __enter__(self) -> Lanes:
        self._supervisor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """End the lanes. One that is in the middle of a trial when an error or Ctrl-C comes is not waited for long."""
        self._closing.set()
        self._ended.set()
        said = error is not None and not isinstance(error, KeyboardInterrupt)
        ray.get(self._hub.close.remote(one_line(error) if error and said else ""))
        until = time.monotonic() + (60 if error is None else 5)
        self._supervisor.join(timeout=5)  # it may have been about to start one more
        for thread in self._driven.values():
            thread.join(timeout=max(0.0, until - time.monotonic()))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        """Start the lanes that are missing, whenever one has ended and every `POLL_S`."""
        while not self._closing.is_set():
            self._ended.clear()
            self._driven = {lane: thread for lane, thread in self._driven.items() if thread.is_alive()}
            free = [lane for lane in range(self._wanted) if lane not in self._driven and self._may_start(lane)]
            for lane in free[: self._wanted - len(self._driven)]:
                self._driven[lane] = threading.Thread(
                    target=self._drive, args=(lane,), name=f"{LANE_THREAD}{lane}", daemon=True
                )
                self._driven[lane].start()
            if not self._driven:
                ray.get(self._hub.close.remote(f"every lane has failed again and again: {self._why}"))
                return
            self._ended.wait(POLL_S)
            if self._run.lanes is None:
                self._wanted = _fitting(self._run)

    def _may_start(self, lane: int) -> bool:
        return self._failures.get(lane, 0) < LANE_FAILURES

    def _drive(self, lane: int) -> None:
        """One worker group, from its start to its end."""
        began = time.monotonic()
        try:
            self._trainer(lane).fit()
        except Exception as error:
            young = time.monotonic() - began < YOUNG_S
            self._failures[lane] = self._failures.get(lane, 0) + 1 if young else 1
            self._why = _why(error)
            if not self._closing.is_set():
                ray.get(self._hub.lane_failed.remote(lane, self._why))
        else:
            self._failures[lane] = 0
        self._ended.set()

    def _trainer(self, lane: int) -> Any:
        gpus = gpus_per_worker(self._run)
        resources = {"CPU": self._run.cpus_per_worker} | ({"GPU": gpus} if gpus else {})
        return _trainer_class(self._run.workers)(
            _work,
            train_loop_config={
                "hub": self._hub,
                "lane": lane,
                "dataset": self._dataset,
                "larger": self._larger,
                "threads": self._run.threads,
                "trials": self._run.trials_per_group,
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=self._run.workers, use_gpu=bool(gpus), resources_per_worker=resources
            ),
            run_config=ray.train.RunConfig(
                name=f"lane-{lane}",
                storage_path=str(self._storage / "lanes"),
                # A failed group is not restarted by Train: see the module's one rule.
                failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )


class _LaneTrainer(DataParallelTrainer):  # type: ignore[misc]
    """Train's trainer without its data sets, of which a lane has none: they would cost each worker group a process."""

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, DatasetsCallback)]


def _trainer_class(workers: int) -> Any:
    """With torch's process group where there are several workers; a lone one needs none, nor its controller torch."""
    if workers == 1:
        return _LaneTrainer
    from ray.train.torch import TorchTrainer

    return type("_LaneTorchTrainer", (_LaneTrainer, TorchTrainer), {})


def _why(error: Exception) -> str:
    """What ended a worker group, in one line."""
    failures = getattr(error, "worker_failures", {}).values()
    causes = [getattr(each, "health_check_failure", each) for each in failures] or [error]
    died = any(isinstance(cause, ray.exceptions.RayActorError) for cause in causes)
    return "its worker died" if died else one_line(causes[0])


def _fitting(run: Run) -> int:
    """How many lanes the cluster holds now; one, if it holds none, for it may grow again."""
    try:
        return lane_count(run)
    except UserError:
        return 1
