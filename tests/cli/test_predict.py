"""`bothways predict`: labels with probabilities from a directory."""

from __future__ import annotations

import json
from pathlib import Path

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
    file.write_text("good good\n\nbad bad\n", encoding="utf-8")
    code, out, err = call(capsys, "predict", "--model", model, "--file", file, "--format", "json")
    assert (code, err) == (0, [])
    rows = json.loads(out)
    assert [row["text"] for row in rows] == ["good good", "bad bad"]
    for row in rows:
        assert set(row["probabilities"]) == set(tiny.LABELS)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["label"]]
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert call(capsys, "predict", "--model", model, "good", "--format", "tsv")[1].startswith(
        "label\tprobability\ttext\n"
    )


def test_a_model_of_single_texts_takes_no_pairs(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "predict", "--model", model, "a", "--pair", "b")
    assert (code, err) == (2, ["error: this model reads single texts, no pairs"])
