"""What a worker of a lane does: take a job, train it, report, save, take the next. Imported by workers only.

The module is apart from `ray_train` because it imports torch and transformers, which a controller or a driver need not.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bothways import trial
from bothways.config import Experiment
from bothways.edges.hub import Decision, Job, Outcome
from bothways.edges.ray_data import RayExecute
from bothways.errors import one_line

log = logging.getLogger(__name__)


class DdpCollective:
    """`contracts.Collective` over the process group that Ray Train has set up."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()

    def wrap(self, model: nn.Module) -> nn.Module:
        """DDP over the workers; a lone worker needs none, and so has exactly the local edge's numbers.

        Made anew for each trial: DDP lays out its buckets after its first step, so a kept wrapper would sum in another
        order than a fresh one, and a warm trial would differ from a cold one in the last bits.
        """
        if self.world == 1:
            return model
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[self.device] if self.device.type == "cuda" else None
        )

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over the workers. Values keep their dtype and device."""
        if self.world == 1:
            return values
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(values.device)

    def agree(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def work(config: Mapping[str, Any]) -> None:
    """What each worker of a lane runs: take a job, train it, report, until there are no more (or one, when cold)."""
    torch.set_num_threads(config["threads"])
    hub, lane = config["hub"], config["lane"]
    collective = DdpCollective()
    attempt = collective.agree(uuid.uuid4().hex)
    dataset = ray.get(config["dataset"])
    workspace = trial.Workspace(collective.device)
    if collective.rank == 0:
        ray.get(hub.lane_started.remote(lane, attempt))
    collective.agree(None)  # nobody asks for a job before the hub knows this attempt
    for seq in itertools.count():
        job: Job | None = ray.get(hub.next_job.remote(lane, attempt, seq))
        if job is None:
            return
        try:
            outcome = _serve(job, dataset, workspace, collective, hub)
        except Exception as error:
            if collective.world > 1 and not isinstance(error, trial.Diverged):
                # The other ranks wait in a collective: only a new worker group frees them.
                ray.get(hub.lane_failed.remote(lane, one_line(error)))
                raise
            log.exception("trial %s failed", job.trial_id)
            outcome = Outcome(trial_id=job.trial_id, status="failed", error=one_line(_root(error)))
        if collective.rank == 0:
            ray.get(hub.finish.remote(lane, outcome))
        if config["cold"]:
            return


def _root(error: BaseException) -> BaseException:
    """The error that a task of Ray has wrapped: what a person wants to read."""
    while inner := getattr(error, "cause", None) or error.__cause__:
        error = inner
    return error


def _serve(job: Job, dataset: Any, workspace: Any, collective: DdpCollective, hub: Any) -> Outcome:
    """Train one job, reporting to the hub, and save its model unless it was stopped."""
    run = trial.Trial(
        Experiment(**job.experiment),
        dataset,
        collective=collective,
        execute=RayExecute(),
        workspace=workspace,
        directory=Path(job.directory),
    )
    try:
        return _train(run, job, collective, hub)
    except trial.Diverged:
        run.discard()
        raise


def _train(run: trial.Trial, job: Job, collective: DdpCollective, hub: Any) -> Outcome:
    for report in run.reports():
        said: Decision = ray.get(hub.report.remote(job.trial_id, report)) if collective.rank == 0 else "go"
        decision = collective.agree(said)
        if decision == "go" or report.step == report.steps:
            continue
        if decision == "interrupt":  # this is where the trial will go on
            run.checkpoint()
            return Outcome(trial_id=job.trial_id, status="interrupted")
        run.discard()
        return Outcome(trial_id=job.trial_id, status="stopped")
    scored = run.score_test() if job.score_test else None
    model_dir = run.save()
    return Outcome(
        trial_id=job.trial_id,
        status="finished",
        model_dir=str(model_dir),
        test=scored.metrics if scored else {},
        hits=scored.hits if scored else (),
        note="; ".join(run.notes),
    )
