"""A few-shot pipeline in this process, with one run of it in MLflow."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path

import torch

from bothways import data
from bothways.config import Pipeline
from bothways.config.yaml_io import dump
from bothways.edges import local
from bothways.edges.lease import lease
from bothways.edges.mlflow_tracking import MlflowTracker
from bothways.errors import UserError
from bothways.few_shot import result
from bothways.few_shot.running import FewShotRun
from bothways.training.workspace import Workspace


def run(pipeline: Pipeline, directory: Path, tell: Callable[[str], None]) -> list[result.ArmResult]:
    """Meta-train and judge every arm of the pipeline. `result.md` and the models are in `directory`.

    Raises `UserError` for a pipeline without `few_shot`, and `Diverged`.
    """
    few_shot = pipeline.few_shot
    if few_shot is None:
        raise UserError(f"pipeline {pipeline.name} has no few_shot section: say its arms, {{plain: {{meta: none}}}}")
    torch.set_num_threads(pipeline.run.threads)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lease(directory))
        dataset = data.load(pipeline.experiment.data, directory, pipeline.experiment.task)
        setting = FewShotRun(
            pipeline.experiment,
            few_shot,
            dataset,
            collective=local.OneWorker(),
            execute=local.execute,
            workspace=Workspace(local.device(pipeline.run)),
        )
        for note in (*dataset.notes, *setting.notes):
            tell(note)
        tracker = stack.enter_context(MlflowTracker(pipeline, directory, dataset, uuid.uuid4().hex))
        tracker.artifact("pipeline.yaml", dump(pipeline.model_dump(mode="json")))
        arms = []
        for name in few_shot.arms:
            arms.append(setting.arm(name, directory / "models", tell))
            tracker.summary(result.metrics(arms[-1:]))
        page = result.markdown(directory.name, arms)
        (directory / "result.md").write_text(page, "utf-8")
        tracker.artifact("result.md", page)
    for problem in tracker.problems:
        tell(f"MLflow: {problem}")
    return arms
