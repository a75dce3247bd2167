"""`bothways predict`: labels with probabilities from a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bothways import cli
from tests import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    trial = tiny.trial(tiny.experiment(optim={"steps": 2, "evaluate_every": 2}), directory)
    list(trial.reports())
    return trial.save()


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, list[str]]:
    code = cli.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def test_predictions_are_labels_with_probabilities(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("good good\n\nbad bad\n", encoding="utf-8-sig")  # with a byte order mark, as Notepad writes it
    code, out, err = call(capsys, "predict", "--model", model, "--file", file, "--format", "json")
    assert (code, err) == (0, [])
    rows = json.loads(out)
    assert [row["text"] for row in rows] == ["good good", "bad bad"]
    for row in rows:
        assert set(row["probabilities"]) == set(tiny.LABELS)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["label"]]
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["value"] == row["label"]
    assert call(capsys, "predict", "--model", model, "good", "--format", "tsv")[1].startswith(
        "label\tprobability\ttext\n"
    )


def test_a_model_of_single_texts_takes_no_pairs(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "predict", "--model", model, "a", "--pair", "b")
    assert (code, err) == (2, ["error: this model reads single texts, no pairs"])


@pytest.mark.parametrize(
    ("family", "task", "make", "kind"),
    [
        ("distilbert", {"name": "regression"}, lambda text, label: float(label), pa.float64()),
        ("gpt2", {"name": "causal_lm", "target_length": 3}, lambda text, _: tiny.signal(text), pa.string()),
    ],
)
def test_what_has_no_probability_is_printed_without(
    family: str, task: Any, make: Any, kind: pa.DataType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.dataset_of(make, kind)
    trial = tiny.trial(tiny.experiment(family, task=task, optim={"steps": 1}), tmp_path, data=data)
    list(trial.reports())
    model = trial.save()
    capsys.readouterr()  # where this process is the first to make a model of the family, transformers says so
    code, out, err = call(capsys, "predict", "--model", model, "the film", "a plot", "--format", "tsv")
    assert (code, err) == (0, [])
    assert [line.split("\t")[-1] for line in out.splitlines()] == ["text", "the film", "a plot"]
    rows = json.loads(call(capsys, "predict", "--model", model, "the film", "--format", "json")[1])
    assert rows[0]["probability"] is None
    assert rows[0]["label"] == out.splitlines()[1].split("\t")[0]
    assert isinstance(rows[0]["value"], float if family == "distilbert" else str)
