"""Loops carried out, on tiny models: what starts from what, killed and gone on with, and left to a person."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bothways import cli
from bothways.config.yaml_io import dump
from bothways.loop import load_loop
from bothways.loop.results import LoopResult, Step
from tests import tiny

pytestmark = pytest.mark.slow

NAMES = {"rotten": "negative", "fresh": "positive"}


def written(folder: Path, name: str, count: int, seed: int, labels: tuple[str, str] = tiny.LABELS) -> str:
    rows = tiny.rows(count, seed=seed).to_pylist()
    file = folder / f"{name}.jsonl"
    file.write_text(
        "".join(json.dumps({"text": row["text"], "label": labels[row["label"]]}) + "\n" for row in rows), "utf-8"
    )
    return str(file)


def loop_file(folder: Path, *, oracle: bool = True, steps: int = 30) -> Path:
    """Adapt, fit, evaluate, ask, fit again, evaluate."""
    pool = written(folder, "pool", 120, seed=11)
    home = {
        "data": {
            "source": written(folder, "home", 60, seed=12, labels=("rotten", "fresh")),
            "label_names": NAMES,
            "splits": {"selection": 10, "test": 10},
        },
        "model": {"source": tiny.model_dir(), "max_length": 24},
        "optim": {"steps": steps, "batch_size": 8, "lr": 2e-3, "evaluate_every": 5},
    }
    there = {"source": written(folder, "there", 80, seed=13), "splits": {"train": 20, "selection": 20, "test": 40}}
    again = {
        "experiment.data.source": "stage:ask",
        "experiment.data.label_names": {},
        "experiment.data.splits": {"selection": 0.3, "test": 0.1},
        "experiment.data.max_bad_rows": 0,
        "experiment.model.source": "stage:fit",
        "experiment.optim.steps": 10,
    }
    asked = {"oracle": {"source": pool}} if oracle else {}
    scored = {"kind": "evaluate", "model": "stage:fit|refit", "pipeline": {"experiment": {"data": there}}}
    adjust = [{"when": {"metric": "log_loss", "above": 0.0}, "then": "ask", "rounds": 2}]
    loop = {
        "name": "small",
        "stages": [
            {"name": "adapt", "kind": "prepare", "steps": 6, "batch_size": 8, "pipeline": {"experiment": home}},
            {
                **{"name": "fit", "kind": "train", "pipeline": "stage:adapt"},
                "overrides": {"experiment.model.source": "stage:adapt"},
            },
            {"name": "check", **scored, "split": "selection", "adjust": adjust, "then": "final"},
            {
                **{"name": "ask", "kind": "suggest_labels", "model": "stage:fit|refit", "texts": {"source": pool}},
                **{"count": 20, **asked},
            },
            {"name": "refit", "kind": "train", "pipeline": "stage:fit", "overrides": again, "then": "check"},
            {"name": "final", **scored, "then": "end"},
        ],
    }
    file = folder / "small.yaml"
    file.write_text(dump(loop), "utf-8")
    return file


def ran(file: Path, storage: Path) -> tuple[LoopResult, list[Step]]:
    from bothways.edges.loop import run

    steps: list[Step] = []
    result = run(load_loop(file, [f"run.storage={storage}"]), on_ray=False, say=lambda _: None, on_step=steps.append)
    assert list(result.steps) == steps
    return result, steps


def test_a_killed_loop_goes_on_where_it_was_and_comes_to_the_same(tmp_path: Path) -> None:
    import mlflow

    file, broken = loop_file(tmp_path, steps=120), tmp_path / "broken"
    whole, steps = ran(file, tmp_path / "whole")
    way = ["adapt", "fit", "check", "ask", "refit", "check", "ask", "refit", "check", "final"]
    assert [step.stage for step in steps] == way
    assert [step.metrics["labelled"] for step in steps if step.stage == "ask"] == [20.0, 40.0]
    assert steps[-2].why == "log_loss above 0, but all 2 rounds are used"

    command = [sys.executable, "-m", "bothways", "loop", str(file), f"run.storage={broken}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        seen = next(line for line in process.stdout if "fit-1-" in line and "step    15/120" in line)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, seen
    (adapted,) = broken.glob("small-loop/stages/adapt-*/result.json")
    assert not list(broken.glob("small-loop/stages/fit-*/result.json"))
    before = adapted.stat().st_mtime_ns
    resumed, again = ran(file, broken)
    assert adapted.stat().st_mtime_ns == before
    assert [step.found for step in again] == [step.stage == "adapt" for step in again]
    assert [(step.stage, step.metrics, step.why) for step in again] == [(s.stage, s.metrics, s.why) for s in steps]

    third, found = ran(file, broken)
    assert all(step.found for step in found)
    assert [step.metrics for step in found] == [step.metrics for step in steps]
    client = mlflow.MlflowClient(third.tracking_uri)
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "small"]
    runs = client.search_runs([experiment])
    (parent,) = [one for one in runs if one.data.tags["bothways.trial"] == "sweep"]
    children = [one for one in runs if one is not parent]
    assert sorted(one.data.tags["bothways.trial"].rsplit("-", 1)[0] for one in children) == sorted(
        f"{step.stage}-{way[:number].count(step.stage) + 1}" for number, step in enumerate(steps)
    )
    assert {one.data.tags["mlflow.parentRunId"] for one in children} == {parent.info.run_id}
    assert {one.info.status for one in runs} == {"FINISHED"}
    finals = [one for one in children if one.data.tags["bothways.trial"].startswith("final")]
    assert finals[0].data.metrics["stage/accuracy"] == steps[-1].metrics["accuracy"]
    assert parent.data.metrics["final/accuracy"] == steps[-1].metrics["accuracy"]
    assert whole.waiting == resumed.waiting == ""
    assert (broken / "small-loop" / "result.md").read_text("utf-8").count("\n| ") == 2 + len(way)


def test_a_stage_runs_anew_when_what_it_starts_from_has_changed(tmp_path: Path) -> None:
    file = loop_file(tmp_path)
    _, steps = ran(file, tmp_path / "runs")
    text = file.read_text("utf-8")
    assert "experiment.optim.steps: 10" in text
    file.write_text(text.replace("experiment.optim.steps: 10", "experiment.optim.steps: 11"), "utf-8")
    _, again = ran(file, tmp_path / "runs")
    first = ["adapt", "fit", "check", "ask"]
    assert [step.stage for step in again if step.found] == first
    assert {step.directory for step in steps[4:]}.isdisjoint(step.directory for step in again[4:])
    home = tmp_path / "home.jsonl"
    home.write_text(home.read_text("utf-8").replace("film", "movie"), "utf-8")
    _, other = ran(file, tmp_path / "runs")
    assert not any(step.found for step in other)


def test_a_person_is_asked_and_what_they_fill_in_is_learnt(tmp_path: Path) -> None:
    file = loop_file(tmp_path, oracle=False)
    result, steps = ran(file, tmp_path / "runs")
    assert [step.stage for step in steps] == ["adapt", "fit", "check", "ask"]
    asked = next(Path(steps[-1].directory).glob("to_label.csv"))
    assert f"fill in the column label of {asked} (negative, positive)" in result.waiting
    known = {}
    for row in tiny.rows(120, seed=11).to_pylist():
        known[row["text"]] = tiny.LABELS[row["label"]]
    with asked.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 20

    def fill(count: int) -> None:
        with asked.open("w", encoding="utf-8-sig", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0])
            writer.writeheader()
            for number, row in enumerate(rows):
                writer.writerow({**row, "label": known[row["text"]] if number < count else ""})

    fill(15)
    result, steps = ran(file, tmp_path / "runs")
    assert [step.stage for step in steps] == ["adapt", "fit", "check", "ask", "refit", "check", "ask"]
    assert steps[3].metrics == {"new_rows": 15.0, "labelled": 15.0}
    assert [step.found for step in steps] == [True, True, True, False, False, False, False]
    second = Path(steps[-1].directory) / "to_label.csv"
    assert second != asked and str(second) in result.waiting
    with second.open(encoding="utf-8-sig", newline="") as opened:
        texts = {row["text"] for row in csv.DictReader(opened)}
    assert len(texts) == 20
    assert texts.isdisjoint(row["text"] for row in rows[:15])
    fill(20)  # more labels: what was learnt from fewer is learnt again
    _, steps = ran(file, tmp_path / "runs")
    assert steps[3].metrics["labelled"] == 20.0
    assert not steps[4].found
    rows[0]["text"], known["x"] = "x", "neither"
    fill(20)
    with pytest.raises(ValueError, match="unknown label 'neither': known: negative, positive"):
        ran(file, tmp_path / "runs")


def test_labels_are_suggested_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, out = written(tmp_path, "pool", 60, seed=21), tmp_path / "ask.csv"
    rows = [json.loads(line) for line in Path(pool).read_text("utf-8").splitlines()]
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows[:50]), "utf-8")
    arguments = ["suggest-labels", "--model", tiny.saved_model(), "--texts", pool, "--count", "8"]
    assert cli.run([*arguments, "--out", str(out), "--labelled", str(labelled)]) == 0
    said = capsys.readouterr().out
    assert "8 of 60 rows" in said and "50 left out as known" in said and "(negative, positive)" in said
    with out.open(encoding="utf-8-sig", newline="") as opened:
        found = list(csv.DictReader(opened))
    fresh = {row["text"]: number for number, row in enumerate(rows, 1) if number > 50}
    assert {row["text"]: int(row["row"]) for row in found}.items() <= fresh.items()
    assert [row["label"] for row in found] == [""] * 8
    assert all(0 <= float(row["uncertainty"]) <= 1 for row in found)
    assert cli.run([*arguments, "--out", str(out)]) == 2
    assert "is there already, perhaps with labels" in capsys.readouterr().err
    assert cli.run([*arguments, "--out", str(tmp_path / "b.csv"), "--labelled", pool]) == 2
    assert "every text is labelled already" in capsys.readouterr().err
