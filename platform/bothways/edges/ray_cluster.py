"""Ray itself: joining or starting a cluster, and what of it a sweep takes."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray

from bothways.config import Run
from bothways.edges.hub import Hub

HEADROOM = 0.25
"""Share of a CPU-only cluster that lanes leave to the transforms of Ray Data."""

HubActor = ray.remote(num_cpus=0, max_concurrency=1000)(Hub)
"""`Hub` as an actor: every waiting lane and trial holds one of its slots, none holds a CPU."""


def start_ray(run: Run) -> None:
    """Connect to `run.address` (or RAY_ADDRESS), else start Ray in this process' own local cluster.

    A local cluster gets half as many CPUs again as there are cores: the lanes take the cores, transforms the rest;
    they alternate in practice, and without the surplus Ray would never schedule a transform beside a full set of lanes.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    address = run.address or os.environ.get("RAY_ADDRESS")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address and address != "local":
        ray.init(address=address, **common)
    else:
        cores = os.cpu_count() or 1
        ray.init(address="local", num_cpus=cores + max(1, cores // 2), include_dashboard=False, **common)


def lane_count(run: Run) -> int:
    """Trials at once: what the cluster holds ÷ what a trial needs, unless the run says."""
    if run.lanes is not None:
        return run.lanes
    have = ray.cluster_resources()
    gpus = gpus_per_worker(run)
    if gpus:
        return max(1, int(have["GPU"] / (gpus * run.workers)))
    cpus = have.get("CPU", 1.0) * (1 - HEADROOM)
    return max(1, int(cpus / (run.cpus_per_worker * run.workers)))


def gpus_per_worker(run: Run) -> float:
    """GPUs one worker takes: `auto` is one where the cluster has any."""
    if run.gpus_per_worker == "auto":
        return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    return float(run.gpus_per_worker)
