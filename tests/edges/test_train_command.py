"""`bothways train` as somebody uses it: interrupted, killed, taken up again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PIPELINE = """
name: tiny
experiment:
  data: {source: %(data)s, splits: {train: 60, selection: 40, test: 60}}
  model: {source: %(model)s, max_length: 24}
  optim: {steps: 600, batch_size: 8, lr: 1e-3, evaluate_every: 50}
run: {storage: %(storage)s}
"""


def write(folder: Path) -> Path:
    from tests import tiny

    folder.mkdir()
    values = {"data": tiny.rows_file(folder), "model": tiny.model_dir(), "storage": folder / "runs"}
    (folder / "pipeline.yaml").write_text(PIPELINE % values)
    return folder / "pipeline.yaml"


def train(pipeline: Path, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "bothways", "train", str(pipeline), *more]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def finished(pipeline: Path, *more: str) -> str:
    process = train(pipeline, *more)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def scores(said: str) -> str:
    return next(line for line in said.splitlines() if line.startswith("test "))


def steps(said: str) -> list[int]:
    return [int(found) for found in re.findall(r"step +(\d+)/", said)]


def runs(folder: Path) -> tuple[Any, dict[str, Any]]:
    """MLflow's client, and its runs by name."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    every = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len({run.data.tags["bothways.trial"] for run in every}) == len(every) == 2, "a parent and its training"
    return client, {run.data.tags["bothways.trial"]: run for run in every}


def cut(pipeline: Path, at: int, ending: signal.Signals, *more: str) -> tuple[int, str]:
    """Ends a training by a signal when it has reported step `at`; its exit code, and what it said."""
    process, said = train(pipeline, *more), ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if f"step {at:>5}/" in line:
            process.send_signal(ending)
    return process.wait(timeout=60), said


def refused(pipeline: Path, *more_and_line: str) -> bool:
    """Whether a training is refused in this line, with exit code 2."""
    *more, line = more_and_line
    process = train(pipeline, *more)
    said, _ = process.communicate(timeout=100)
    return process.returncode == 2 and "Traceback" not in said and line in " ".join(said.split())


def test_an_interrupted_training_goes_on_from_its_checkpoint_and_comes_to_the_same(tmp_path: Path) -> None:
    whole = finished(write(tmp_path / "whole"))
    assert steps(whole) == list(range(50, 601, 50))
    pipeline = write(tmp_path / "cut")
    assert refused(pipeline, "--resume", "there is no sweep of tiny-train")

    code, said = cut(pipeline, 150, signal.SIGTERM)
    assert (code, "Traceback" in said) == (143, False), said
    assert "bothways train --resume" in said
    assert refused(pipeline, "--resume", "experiment.seed=9", "begun with another experiment")
    code, said = cut(pipeline, 400, signal.SIGKILL, "--resume")
    assert code == -signal.SIGKILL, said
    assert "went on from step" in said

    last = finished(pipeline, "--resume")
    assert int(re.findall(r"went on from step (\d+)", last)[0]) >= 150
    assert (steps(last), scores(last)) == (steps(whole), scores(whole))
    client, found = runs(tmp_path / "cut")
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    history = client.get_metric_history(found["tiny-train-001"].info.run_id, "selection/accuracy")
    assert sorted(metric.step for metric in history) == steps(whole)
    assert refused(pipeline, "--resume", "has been trained to its end")
