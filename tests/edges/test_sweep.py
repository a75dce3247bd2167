"""A whole sweep on a real Ray, MLflow store and small model: what it leaves, and how it is taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = """
input.augment.n_aug: [0, 1]
input.augment.policy.0.0.name: {choices: [random_deletion, random_swap], when: {input.augment.n_aug: 1}}
input.augment.policy.0.0.p: {float: [0.05, 0.3], when: {input.augment.n_aug: 1}}
output.objectives.0.name: [cross_entropy, rdrop]
control: {input.augment.n_aug: 0, output.objectives.0.name: cross_entropy}
"""
PIPELINE = """
name: tiny
experiment:
  data: {source: %(data)s, splits: {train: 60, selection: 40, test: 60}}
  model: {source: %(model)s, max_length: 24}
  optim: {steps: %(steps)s, batch_size: 8, lr: 2e-3, evaluate_every: 5}
search:
  {space: space.yaml, trials: 6, grace_steps: 5, reduction_factor: 2, finalists: 2, finalist_seeds: 1, confirm_seeds: 2}
run: {storage: %(storage)s}
"""


def write(folder: Path, steps: int) -> Path:
    """A pipeline with data of its own; returns its file."""
    from tests import tiny

    (folder / "space.yaml").write_text(SPACE)
    values = {"data": tiny.rows_file(folder), "model": tiny.model_dir(), "steps": steps, "storage": folder / "runs"}
    (folder / "pipeline.yaml").write_text(PIPELINE % values)
    return folder / "pipeline.yaml"


def tune(pipeline: Path, *more: str, **how: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bothways", "tune", str(pipeline), *more]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    return subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        **how,
    )


def runs(folder: Path) -> tuple[list[Any], list[Any]]:
    """The parent runs and the child runs of the store."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    every = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=500)
    parents = [run for run in every if run.data.tags["bothways.trial"] == "sweep"]
    return parents, [run for run in every if run not in parents]


def events(folder: Path) -> list[dict[str, Any]]:
    file = folder / "runs" / "tiny-001" / "events.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_sweep_leaves_one_parent_its_children_their_models_and_a_champion(tmp_path: Path) -> None:
    done = tune(write(tmp_path, steps=20))
    out, _ = done.communicate(timeout=400)
    assert done.returncode == 0, out
    assert "control" in out
    assert "95 % interval" in out or "Nothing the search tried" in out

    parents, children = runs(tmp_path)
    assert [p.info.status for p in parents] == ["FINISHED"]
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parents[0].info.run_id}
    searched = [c for c in children if c.info.run_name[0].isdigit()]
    assert len(searched) == 6
    assert {c.info.status for c in children} <= {"FINISHED", "KILLED"}
    assert {c.info.run_name for c in children} >= {"000-control", "confirm-control-1000", "confirm-control-1001"}
    again = [c.info.run_name for c in children if c.info.run_name.startswith("again-")]
    finished = {c.info.run_name for c in searched if c.info.status == "FINISHED"}
    assert len(again) in ((2, 3) if len(finished) > 1 else (0,))  # the best two and the control, who may be one of them
    assert ("again-000-control-500" in again) == (len(finished) > 1)
    assert {name.removeprefix("again-").removesuffix("-500") for name in again} <= finished
    for child in children:
        assert child.data.params["optim.lr"] == "0.002"
        assert bool(child.outputs.model_outputs) == (child.info.status == "FINISHED"), child.info.run_name
    digests = {i.dataset.digest for i in parents[0].inputs.dataset_inputs}
    assert digests == {parents[0].data.tags["bothways.data"][:36]}

    from bothways.config import yaml_io
    from bothways.policy import file as policy_file

    sweep = tmp_path / "runs" / "tiny-001"
    policy = policy_file.load(sweep / "policy.yaml")
    assert policy.input.model_dump(mode="json") == yaml_io.read(sweep / "best.yaml").data["input"]

    from bothways.predict import Predictor

    texts = ["a great film", "an awful film", "the plot was dull"]
    program = (
        "import json, mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]);"
        "model = mlflow.pyfunc.load_model('models:/tiny@champion');"
        "found = model.predict([{'text': text} for text in sys.argv[2:]]);"
        "print(json.dumps([list(found['label']), list(found['probability'])]))"
    )
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    loaded = subprocess.run([sys.executable, "-c", program, uri, *texts], capture_output=True, text=True, timeout=200)
    assert loaded.returncode == 0, loaded.stderr
    here = Predictor(tmp_path / "runs" / "tiny-001" / "champion")(texts)
    labels, probabilities = json.loads(loaded.stdout)
    assert labels == [p.label for p in here]
    assert probabilities == pytest.approx([p.probabilities[p.label] for p in here], abs=1e-6)


@pytest.mark.parametrize(
    "ending", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.chaos)]
)
def test_an_interrupted_sweep_is_taken_up_where_it_was(tmp_path: Path, ending: signal.Signals) -> None:
    pipeline = write(tmp_path, steps=60)
    first = tune(pipeline)
    until = time.monotonic() + 200
    while sum(e["kind"] == "end" for e in events(tmp_path)) < 2:
        assert time.monotonic() < until, "two trials did not end in 200 s"
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.2)
    asked = time.monotonic()
    first.send_signal(ending)
    out, _ = first.communicate(timeout=60)
    if ending != signal.SIGKILL:
        assert first.returncode == 128 + ending, out
        assert time.monotonic() - asked < 15
        assert "--resume" in out
        assert "Traceback" not in out
        assert {c.info.status for c in runs(tmp_path)[1]} <= {"FINISHED", "KILLED"}

    before = events(tmp_path)
    ended = {e["trial_id"] for e in before if e["kind"] == "end" and e["outcome"]["status"] != "interrupted"}
    assert len(ended) >= 2
    second = tune(pipeline, "--resume")
    out, _ = second.communicate(timeout=400)
    assert second.returncode == 0, out
    begun = {e["trial_id"] for e in events(tmp_path)[len(before) :] if e["kind"] == "begin"}
    parents, children = runs(tmp_path)
    names = [c.info.run_name for c in children]
    assert len(names) == len(set(names)), "a trial has two runs"
    assert [p.info.status for p in parents] == ["FINISHED"]
    assert {c.info.status for c in children} <= {"FINISHED", "KILLED"}
    assert len([n for n in names if n[0].isdigit()]) == 6
    assert not begun & ended, "a finished trial was run again"
    jobs = [e["job"] for e in events(tmp_path) if e["kind"] == "begin"]
    assert all(job["knobs"] for job in jobs)
    numbers = {job["trial_id"]: job["knobs"] for job in jobs if job["trial_id"][0].isdigit()}
    assert sorted(int(name.split("-")[0]) for name in numbers) == list(range(6))

    third = tune(pipeline, "--resume", "experiment.optim.lr=1e-3")
    out, _ = third.communicate(timeout=100)
    assert third.returncode == 2, out
    assert "was begun with another experiment" in out
