"""Ray itself: joining or starting a cluster, and what of it a sweep takes."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bothways.config import Run
from bothways.edges.hub import Hub
from bothways.errors import UserError, one_line

HEADROOM = 1 / 3
"""Share of a CPU-only cluster that lanes leave to the transforms of Ray Data."""

LANE_THREAD = "lane-"
"""How the names of the threads begin that drive the lanes."""


def start_ray(run: Run) -> None:
    """Connect to `run.address` (or RAY_ADDRESS), else start Ray in this process' own local cluster."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    on_term = signal.getsignal(signal.SIGTERM)
    address = run.address or os.environ.get("RAY_ADDRESS")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address and address != "local":
        try:
            ray.init(address=address, **common)
        except ConnectionError as error:
            raise UserError(f"no Ray cluster at {address}: {one_line(error)}") from None
    else:
        ray.init(address="local", num_cpus=logical_cpus(), include_dashboard=False, **common)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray has put its own in its place, which only exits


def start_hub(max_attempts: int, first: str = "") -> Any:
    """A `Hub` as an actor on this node, so that no other node's loss is the sweep's.

    Every waiting lane and trial holds one of its slots, none holds a CPU.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_concurrency=1000, scheduling_strategy=here)(Hub)
    return actor.remote(max_attempts, first)


def leave_ray() -> None:
    """Disconnect, unless a lane's thread still waits in Ray: Ray would end the whole process at once for that.

    Then the end of the process is what ends the cluster (Ray's reaper) or the job's actors.
    """
    if not any(thread.name.startswith(LANE_THREAD) for thread in threading.enumerate()):
        ray.shutdown()


def logical_cpus() -> int:
    """CPUs to declare for a one-machine cluster: half as many again as it has cores.

    Lanes take the cores, transforms the rest. They alternate in practice; without the surplus Ray would never schedule
    a transform beside a full set of lanes.
    """
    cores = os.cpu_count() or 1
    return cores + max(2, cores // 2)


def lane_count(run: Run) -> int:
    """How many trials run at the same time: `run.lanes`, or as many as fit.

    Raises `UserError` when the cluster cannot hold that many at once.
    """
    have = ray.cluster_resources()
    per_trial = {"CPU": run.cpus_per_worker * run.workers, "GPU": gpus_per_worker(run) * run.workers}
    fit = min(int(have.get(kind, 0.0) / need + 1e-9) for kind, need in per_trial.items() if need)
    if fit < (run.lanes or 1):
        needs = ", ".join(f"{need:g} {kind}" for kind, need in per_trial.items() if need)
        holds = ", ".join(f"{have.get(kind, 0):g} {kind}" for kind, need in per_trial.items() if need)
        raise UserError(
            f"run.lanes {run.lanes or 1} x run.workers {run.workers}: a lane needs {needs}, the cluster has {holds}"
        )
    if run.lanes is not None:
        return run.lanes
    return fit if per_trial["GPU"] else max(1, int(fit * (1 - HEADROOM) + 1e-9))


def gpus_per_worker(run: Run) -> float:
    """GPUs one worker takes: `auto` is one where the cluster has any."""
    if run.gpus_per_worker == "auto":
        return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    return float(run.gpus_per_worker)
