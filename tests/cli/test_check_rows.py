"""`bothways check --rows`: training rows as the model reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bothways import cli
from bothways.config import yaml_io
from tests import tiny
from tests.data.writing import write_csv


@pytest.mark.parametrize(
    ("family", "rows", "task", "expected"),
    [
        ("bert", 2, {"name": "classification"}, ['row 1, 5 tokens: "[CLS] the film was [SEP]"']),
        (
            "gpt2",
            1,
            {"name": "causal_lm", "target_length": 4, "template": "one {text} is"},
            ['row 1, 7 tokens: "one the film was is"', '  learns: "good [SEP]"'],
        ),
        (
            "t5",
            1,
            {"name": "seq2seq", "target_length": 4},
            ['row 1, 5 tokens: "[CLS] the film was [SEP]"', '  learns: "[CLS] good [SEP]"'],
        ),
    ],
)
def test_rows_are_shown_with_what_is_learnt_of_them(
    family: str,
    rows: int,
    task: dict[str, Any],
    expected: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train = write_csv(tmp_path / "train.csv", [("the film was", "good"), ("the film was", "bad")][:rows])
    others = write_csv(tmp_path / "others.csv", [("a very dull plot", "good"), ("a lovely plot", "good")])
    sources = {"source": train, "selection_source": others, "test_source": others, "dedup": "keep"}
    experiment = {
        "task": task,
        "data": {**sources, "splits": {"train": None, "selection": 1, "test": 1}},
        "model": {"source": tiny.model_dir(family), "max_length": 12},
    }
    file = tmp_path / "p.yaml"
    file.write_text(yaml_io.dump({"name": "demo", "experiment": experiment}))
    assert cli.run(["check", str(file), "--rows", "1"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("ok  ")
    notes = [line for line in lines if line.startswith("note     ")]
    assert lines == [*notes, *expected]
    kept = [note for note in notes if "have contradicting labels: 2" in note]
    assert len(kept) == (rows == 2)
