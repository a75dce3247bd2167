"""A whole comparison on a real Ray, MLflow store and small model: what it leaves, and how it is taken up again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bothways import analysis

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PIPELINE = """
name: tiny
experiment:
  data: {source: %(data)s, splits: {train: 16, selection: 20, test: 100}}
  model: {source: %(model)s, max_length: 24, dropout: 0.0}
  input: {augment: {n_aug: 1, policy: [[{name: random_swap, p: 0.3}]]}}
  output: {objectives: [{name: label_smoothing, epsilon: 0.1}]}
  optim: {steps: 30, batch_size: 16, lr: 2e-2, head_lr: 1e-2, evaluate_every: 15}
run: {storage: %(storage)s}
"""
ARMS = ["none", "copies", "input", "output", "both"]
CURVE = [24, 32, 64]
SEEDS = 3


def write(folder: Path) -> Path:
    from tests import tiny

    values = {"data": tiny.rows_file(folder), "model": tiny.model_dir(), "storage": folder / "runs"}
    (folder / "pipeline.yaml").write_text(PIPELINE % values)
    return folder / "pipeline.yaml"


def compare(pipeline: Path, *more: str) -> tuple[int, str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "bothways", "compare", str(pipeline), "--seeds", str(SEEDS), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    sys.stdout.write(done.stdout)
    return done.returncode, done.stdout + done.stderr


def runs(folder: Path) -> tuple[list[Any], list[Any]]:
    """The parent runs and the child runs of the store."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    every = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=500)
    parents = [run for run in every if run.data.tags["bothways.trial"] == "sweep"]
    return parents, [run for run in every if run not in parents]


def test_a_comparison_proves_each_arm_and_is_taken_up_where_it_was(tmp_path: Path) -> None:
    pipeline, home = write(tmp_path), tmp_path / "runs" / "tiny-compare-001"
    code, out = compare(pipeline)
    assert code == 0, out
    assert f"{SEEDS * (len(ARMS) + len(CURVE))} trainings" in out
    assert "Synergy (both - input - output + none)" in out
    found = json.loads((home / "comparison.json").read_text())
    assert (list(found["arms"]), [int(rows) for rows in found["curve"]]) == (ARMS, [16, *CURVE])
    assert found["seeds"] == [2000, 2001, 2002]
    assert found["arms"]["none"]["by_seed"] == pytest.approx(found["metrics"]["none"]["accuracy"])

    journal = home / "events.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    jobs = {e["trial_id"]: e["job"]["experiment"] for e in events if e["kind"] == "begin"}
    ended = {e["trial_id"]: e["outcome"] for e in events if e["kind"] == "end"}
    assert {job["optim"]["steps"] for job in jobs.values()} == {30}
    assert jobs["none-64-rows-2001"]["data"]["splits"]["train"] == 64
    steps = {e["trial_id"]: e["report"]["step"] for e in events if e["kind"] == "report"}
    assert set(steps.values()) == {30}

    def hits(arm: str) -> Any:
        return np.array([ended[f"{arm}-{seed}"]["hits"] for seed in found["seeds"]])

    synergy = analysis.estimate(hits("both") - hits("input") - hits("output") + hits("none"))
    assert found["synergy"] == pytest.approx(vars(synergy))
    losses = {e["trial_id"]: e["report"]["metrics"]["train/loss"] for e in events if e["kind"] == "report"}
    plain = [losses[name] for name in ("none-2000", *(f"none-{rows}-rows-2000" for rows in CURVE))]
    assert len(set(plain)) == 4, "more rows were not trained on"

    parents, children = runs(tmp_path)
    assert [p.info.status for p in parents] == ["FINISHED"]
    assert parents[0].data.metrics["compare/synergy"] == pytest.approx(synergy.mean)
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parents[0].info.run_id}
    tags = [c.data.tags["bothways.arm"] for c in children]
    assert sorted(tags) == sorted(SEEDS * [*ARMS, *(f"none-{rows}-rows" for rows in CURVE)])
    assert {c.info.run_name: c.data.params["data.splits.train"] for c in children}["none-32-rows-2000"] == "32"
    artifacts = list((tmp_path / "runs" / "mlartifacts").rglob("comparison.*"))
    assert {file.name for file in artifacts} == {"comparison.md", "comparison.json"}

    # As a kill would leave it: two trainings have begun and not ended, and nothing was concluded.
    lost = {"both-2000", "none-24-rows-2001"}
    kept = [e for e in events if e.get("trial_id") not in lost or e["kind"] == "begin"]
    journal.write_text("".join(json.dumps(e) + "\n" for e in kept))
    before = (home / "comparison.json").read_bytes()
    (home / "comparison.json").unlink()
    code, out = compare(pipeline, "--resume")
    assert code == 0, out
    later = [json.loads(line) for line in journal.read_text().splitlines()][len(kept) :]
    assert {e["trial_id"] for e in later if e["kind"] == "begin"} == lost
    assert (home / "comparison.json").read_bytes() == before
    assert len(runs(tmp_path)[1]) == len(children), "a training has two runs"
