"""One experiment, trained once: in this process, or by a lane of Ray. The same trial, and the same numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ray

from bothways import data
from bothways.config import Pipeline, yaml_io
from bothways.edges import local
from bothways.edges.hub import Event, Job
from bothways.edges.lease import identity, lease
from bothways.edges.mlflow_tracking import MlflowTracker
from bothways.edges.ray_cluster import leave_ray, start_hub, start_ray
from bothways.edges.ray_train import Lanes
from bothways.edges.record import Pump, Record, read
from bothways.errors import UserError
from bothways.results import Report, TrialResult

OnReport = Callable[[Report], None]


def train(
    pipeline: Pipeline, directory: Path, *, on_ray: bool, on_report: OnReport, tell: Callable[[str], None]
) -> TrialResult:
    """Train the pipeline's experiment to its last step, score the test rows, save and record its model. In a directory
    where this training was interrupted it goes on, from the checkpoint there and in the same run of MLflow.

    `tell`: hears what there is to say of the data, before anything is trained, and what MLflow has not taken. Raises
    `UserError` where the directory has a finished training, or one of something else.
    """
    name = directory.name
    with contextlib.ExitStack() as stack:
        stack.enter_context(lease(directory))
        if (model := directory / "model").exists():
            raise UserError(f"{name} has been trained to its end, its model is {model}: run without --resume")
        dataset = data.load(pipeline.experiment.data, directory, pipeline.experiment.task)
        for note in dataset.notes:
            tell(note)
        what = {"experiment": pipeline.experiment.digest, "data": dataset.digest}
        own = identity(directory, what, {"pipeline.yaml": yaml_io.dump(pipeline.model_dump(mode="json"))})
        tracker = stack.enter_context(MlflowTracker(pipeline, directory, dataset, own))
        tracker.begin(name, name, pipeline.experiment.spec(), {})

        def record(report: Report) -> None:
            tracker.report(name, report.step, report.metrics)
            on_report(report)

        if on_ray:
            result = through_ray(pipeline, directory, dataset, record)
        else:
            result = local.run(
                pipeline.experiment,
                pipeline.run,
                trial_id=name,
                directory=directory,
                dataset=dataset,
                on_report=record,
                score_test=True,
                tell=tell,
            )
        tracker.end(name, result.status, result.test, result.model_dir, result.error)
    for problem in tracker.problems:
        tell(f"MLflow: {problem}")
    return result


def through_ray(pipeline: Pipeline, directory: Path, dataset: data.Dataset, on_report: OnReport) -> TrialResult:
    """Train by a lane of a cluster that is joined, or started, for it."""
    run = pipeline.run.model_copy(update={"lanes": 1})
    record = Record.replay(journal := directory / "events.jsonl")

    def forward(event: Event) -> None:
        if event.report is not None:
            on_report(event.report)

    for event in read(journal):
        forward(event)
    with contextlib.ExitStack() as stack:
        start_ray(run)
        stack.callback(leave_ray)
        hub = start_hub(run.max_failures)
        pump = Pump(hub, [record, forward], run.stall_timeout_s, lambda why: ray.get(hub.close.remote(why)))
        pump.start()
        stack.callback(pump.drain)
        with Lanes(hub, ray.put(dataset), run, directory):
            job = Job(
                trial_id=directory.name,
                experiment=pipeline.experiment.spec(),
                directory=str(directory),
                lock_step=False,
                score_test=True,
            )
            ray.get(hub.submit.remote(job))
            outcome = ray.get(hub.outcome.remote(job.trial_id))
    result = TrialResult(
        trial_id=job.trial_id,
        experiment=job.experiment,
        status=outcome.status,
        model_dir=outcome.model_dir,
        test=outcome.test,
        error=outcome.error,
    )
    return replace(result, reports=tuple(record.trials[job.trial_id].reports))
