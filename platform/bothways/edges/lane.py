"""What a worker of a lane does: take a job, train it, report, save, take the next. Imported by workers only.

The module is apart from `ray_train` because it imports torch and transformers, which a controller or a driver need not.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bothways import data
from bothways.config import Experiment
from bothways.contracts import Encode, Views
from bothways.edges import local
from bothways.edges.hub import Decision, Job, Outcome
from bothways.edges.ray_data import RayExecute
from bothways.errors import UserError, one_line
from bothways.policy import effects as text_effects
from bothways.results import Report
from bothways.training import trial
from bothways.training.cross_validation import CrossValidation, experiments
from bothways.training.workspace import Workspace

log = logging.getLogger(__name__)


def execute(views: Views, encode: Encode) -> Iterator[pa.Table]:
    """`contracts.Execute`: Ray Data for what is more than one block. Texts do not depend on who reads them.

    A block costs the worker a fraction of a second, between its steps; an execution of Ray Data costs tenths of one to
    begin, for every trial, and its first one in a process several. Where a language model writes, a worker that has a
    GPU does all of it there: the model stays with the lane, and no share of a GPU has to be kept free for it. Without
    GPUs it is the CPUs' work, beside the training.
    """
    sharded = RayExecute()
    if getattr(encode, "loads_model", False):
        return (local.execute if torch.cuda.is_available() else sharded)(views, encode)
    return (local.execute if views.num_rows <= sharded.block_rows else sharded)(views, encode)


class DdpCollective:
    """`contracts.Collective` over the process group that Ray Train has set up."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

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
    """What each worker of a lane runs: take a job, train it, report; `trials` times, or until there are no more."""
    torch.set_num_threads(config["threads"])
    with ThreadPoolExecutor(
        max_workers=1, thread_name_prefix="writer"
    ) as writer:  # leaving it waits for the last model
        lane = Lane(config["hub"], config["lane"], ray.get(config["dataset"]), writer, config["larger"])
        for seq in range(config["trials"]) if config["trials"] else itertools.count():
            if not lane.serve(seq):
                return


class Lane:
    """One worker of lane `number`. `writer` puts a trial's model onto the disk while the next trial trains. `larger`:
    references to the data with more training rows, by their number."""

    def __init__(
        self, hub: Any, number: int, dataset: data.Dataset, writer: ThreadPoolExecutor, larger: Mapping[int, Any]
    ) -> None:
        self._hub = hub
        self._number = number
        self._dataset = dataset
        self._larger = larger
        self._writer = writer
        self._writing: Future[None] | None = None
        self._collective = DdpCollective()
        self._workspace = Workspace(self._collective.device)
        self._judges: dict[tuple[tuple[str, ...], str], tuple[text_effects.Judge, ...]] = {}
        self._attempt = self._collective.agree(uuid.uuid4().hex)
        if self._collective.rank == 0:
            where = f"in process {os.getpid()} on {ray.util.get_node_ip_address()}"
            ray.get(hub.lane_started.remote(number, self._attempt, where))
            self._workspace.say = lambda note: ray.get(hub.lane_says.remote(number, note))
        self._collective.agree(None)  # nobody asks for a job before the hub knows this attempt
        self._free_at = time.monotonic()

    def serve(self, seq: int) -> bool:
        """Train job number `seq`. False when these processes are to take no more."""
        job: Job | None = ray.get(self._hub.next_job.remote(self._number, self._attempt, seq))
        if job is None:
            return False
        try:
            self._train(job)
        except Exception as error:
            log.exception("trial %s failed", job.trial_id)
            if self._collective.world > 1 and not isinstance(error, trial.Diverged):
                raise  # the other ranks wait in a collective: only new processes free them
            self._finish(Outcome(trial_id=job.trial_id, status="failed", error=one_line(_root(error))))
            # What an unforeseen error leaves behind in a process is unknown.
            return isinstance(error, trial.Diverged | UserError | ray.exceptions.RayTaskError)
        return True

    def _data(self, experiment: Experiment) -> data.Dataset:
        rows = experiment.data.splits.train
        return ray.get(self._larger[rows]) if isinstance(rows, int) and rows in self._larger else self._dataset

    def _begin(self, job: Job, experiment: Experiment) -> trial.Trial | CrossValidation:
        def begin(experiment: Experiment, directory: Path) -> trial.Trial:
            fold, whole = experiment.data.fold if job.folds else None, self._data(experiment)
            return trial.Trial(
                experiment,
                data.folded(whole, fold, experiment.data.split_seed) if fold else whole,
                collective=self._collective,
                execute=execute,
                workspace=self._workspace,
                directory=directory,
                asked=self._asked(job),
            )

        directory = Path(job.directory)
        if not job.folds:
            return begin(experiment, directory)
        folds = experiments(experiment, job.folds, job.repeats)
        return CrossValidation(folds, begin, directory=directory, rank=self._collective.rank)

    def _asked(self, job: Job) -> text_effects.Asked:
        """The models that look at copies are loaded once, and by the worker that reports."""
        if self._collective.rank:
            return text_effects.Asked(always=job.copies)

        key = (tuple(job.controls), job.perplexity)
        if key not in self._judges:
            self._judges[key] = self._load(job)
        return text_effects.Asked(always=job.copies, judges=self._judges[key])

    def _load(self, job: Job) -> tuple[text_effects.Judge, ...]:
        from bothways.policy import judges as text_judges

        device, found = self._collective.device, list[text_effects.Judge]()
        if job.controls:
            unlearnt = text_judges.unlearnt(self._dataset, Experiment(**job.experiment))
            found.append(text_judges.Fidelity(list(zip(job.controls, unlearnt, strict=True)), device))
        if job.perplexity:
            found.append(text_judges.Perplexity(job.perplexity, device))
        return tuple(found)

    def _train(self, job: Job) -> None:
        """Train to the end, or until the hub says otherwise; save the model of a trial that was not stopped."""
        experiment = Experiment(**job.experiment)
        waited = time.monotonic() - self._free_at
        run = self._begin(job, experiment)
        try:
            for number, report in enumerate(run.reports()):
                decision = self._decision(job, report if number else _waited(report, waited))
                if decision == "go" or report.step == report.steps:
                    continue
                if decision == "interrupt":  # this is where the trial will go on
                    run.checkpoint()
                    return self._finish(Outcome(trial_id=job.trial_id, status="interrupted"))
                run.discard()
                return self._finish(Outcome(trial_id=job.trial_id, status="stopped"))
        except trial.Diverged:
            run.discard()
            raise
        scored = run.score_test() if job.score_test else trial.Scored(metrics={}, hits=())
        outcome = Outcome(
            trial_id=job.trial_id, status="finished", test=scored.metrics, hits=scored.hits, note="; ".join(run.notes)
        )
        self._write(run.saving(), outcome)

    def _decision(self, job: Job, report: Report) -> Decision:
        said: Decision = "go"
        if self._collective.rank == 0:
            said = ray.get(self._hub.report.remote(job.trial_id, report))
        said = self._collective.agree(said)
        self._free_at = time.monotonic()
        return said

    def _write(self, write: Callable[[], Path], outcome: Outcome) -> None:
        """Save the model beside what comes next; the trial ends when it is on the disk."""

        def save() -> None:
            try:
                self._finish(replace(outcome, model_dir=str(write())))
            except Exception as error:
                self._finish(replace(outcome, status="failed", error=one_line(error)))

        if self._writing is not None:
            self._writing.result()  # one at a time: a slow disk holds trials back, it does not fill the memory
        self._writing = self._writer.submit(save)

    def _finish(self, outcome: Outcome) -> None:
        if self._collective.rank == 0:
            ray.get(self._hub.finish.remote(outcome))


def _waited(report: Report, seconds: float) -> Report:
    """A trial's first report, with what its lane has waited for the trial added to the trial's own start."""
    start = report.metrics["time/start_s"] + seconds
    return replace(report, metrics={**report.metrics, "time/start_s": start})


def _root(error: BaseException) -> BaseException:
    """The error that a task of Ray has wrapped: what a person wants to read."""
    while inner := getattr(error, "cause", None) or error.__cause__:
        error = inner
    return error
