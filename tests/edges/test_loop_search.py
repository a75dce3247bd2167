"""A search as a stage of a loop: its champion and its policy are the start of the next one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bothways.config.yaml_io import dump
from bothways.loop import load_loop
from tests import tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = """\
input.augment.n_aug: [0, 1]
input.augment.policy.0.0.name: {choices: [random_swap], when: {input.augment.n_aug: 1}}
input.augment.policy.0.0.p: {float: [0.1, 0.3], when: {input.augment.n_aug: 1}}
control: {input.augment.n_aug: 0}
"""


def test_a_search_gives_its_champion_and_its_policy_to_the_next_stage(tmp_path: Path) -> None:
    from bothways.edges.loop import run

    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"text": r["text"], "label": r["label"]}) + "\n" for r in tiny.rows(120, seed=5).to_pylist())
    )
    (tmp_path / "s.yaml").write_text(SPACE, "utf-8")
    experiment = {
        "data": {"source": str(rows), "splits": {"selection": 30, "test": 30}},
        "model": {"source": tiny.model_dir(), "max_length": 24},
        "optim": {"steps": 8, "batch_size": 8, "lr": 2e-3, "evaluate_every": 4},
    }
    search = {"space": "s.yaml", "trials": 2, "finalist_seeds": 0, "confirm_seeds": 1}
    taken = {"experiment.model.source": "stage:search"}
    loop = {
        "name": "searching",
        "stages": [
            {"name": "search", "kind": "tune", "pipeline": {"experiment": experiment, "search": search}},
            {
                **{"name": "fit", "kind": "train", "pipeline": "stage:search"},
                **{"policy": "stage:search", "overrides": taken},
            },
            {"name": "score", "kind": "evaluate", "pipeline": "stage:search", "model": "stage:fit"},
        ],
        "run": {"storage": str(tmp_path / "runs"), "lanes": 1},
    }
    (tmp_path / "l.yaml").write_text(dump(loop), "utf-8")
    loaded = load_loop(tmp_path / "l.yaml")
    command = [sys.executable, "-m", "bothways", "loop", str(tmp_path / "l.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    result = run(loaded, on_ray=False, say=lambda _: None, on_step=lambda _: None)
    assert [step.found for step in result.steps] == [True] * 3  # all of it by the process that has ended
    searched, fitted, scored = result.steps
    assert {"test/control", "test/gain"} <= searched.metrics.keys()
    (champion,) = Path(searched.directory).glob("searching-search-001/champion")
    (model,) = Path(fitted.directory).glob("model/model.json")
    trained = json.loads(model.read_text("utf-8"))["experiment"]
    assert trained["model"]["source"] == str(champion)
    best = json.loads((champion / "model.json").read_text("utf-8"))["experiment"]
    assert trained["input"] == best["input"]
    assert 0 <= scored.metrics["accuracy"] <= 1
