"""Several sources become one set of instructions: what is asked of each text, what is answered, how many are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bothways.config import Data, Splits
from bothways.config.domains import source_name
from bothways.data import Dataset, load
from bothways.errors import UserError
from bothways.registry import TASKS
from tests.data.writing import labelled, texts, write_csv

TASK = TASKS.build("causal_lm")
SPLITS = Splits(train=10, selection=4, test=6)


@pytest.fixture
def sources(tmp_path: Path) -> list[dict[str, Any]]:
    """Twelve rows that are to be judged, and ten that are to be said shorter, of a hundred."""
    short = write_csv(tmp_path / "short.csv", [(text, text[:7]) for text in texts(100, start=40)], "long,short")
    kinds = write_csv(tmp_path / "kinds.csv", labelled(12))
    return [
        {"source": kinds, "prompt": "Which?\n{text}", "answers": {"c0": "the first"}},
        {"source": short, "text": "long", "label": "short", "prompt": "Shorter: {text}!", "rows": 10},
    ]


def rows(dataset: Dataset) -> set[tuple[str, str]]:
    parts = (dataset.train, dataset.selection, dataset.test)
    return {row for part in parts for row in zip(*(part[c].to_pylist() for c in ("text", "label")), strict=True)}


def test_each_source_is_asked_its_own_question(sources: list[dict[str, Any]]) -> None:
    dataset = load(Data(source=sources, splits=SPLITS), task=TASK)  # type: ignore[arg-type]
    found = rows(dataset) | {(text, "") for text in dataset.unlabelled["text"].to_pylist()}
    assert len(rows(dataset)) == 20
    first = {(f"Which?\n{text}", {"c0": "the first"}.get(label, label)) for text, label in labelled(12)}
    second = {(f"Shorter: {text}!", text[:7]) for text in texts(100, start=40)}
    assert rows(dataset) < first | second
    assert len([text for text, _ in found if text.startswith("Which?")]) == 12
    assert len([text for text, _ in found if text.startswith("Shorter")]) == 10


def test_which_rows_are_drawn_follows_from_the_content_and_the_seed(
    sources: list[dict[str, Any]], tmp_path: Path
) -> None:
    def drawn(seed: int = 0) -> set[str]:
        found = load(Data(source=sources[1:], splits=Splits(train=6, selection=2, test=2), split_seed=seed), task=TASK)  # type: ignore[arg-type]
        return {text for text, _ in rows(found)}

    once = drawn()
    assert once == drawn()
    assert len(once - drawn(seed=1)) > 3
    header, *lines = Path(sources[1]["source"]).read_text().splitlines()
    Path(sources[1]["source"]).write_text("\n".join([header, *lines[::-1]]) + "\n")
    assert drawn() == once


def test_a_text_that_is_not_there_is_not_asked_about(sources: list[dict[str, Any]], tmp_path: Path) -> None:
    with Path(sources[0]["source"]).open("a") as file:
        file.write(" ,c1\n")
    with pytest.raises(UserError, match=r"kinds.csv:14: empty text; 1 of 23 rows are unusable"):
        load(Data(source=sources, splits=SPLITS), task=TASK)  # type: ignore[arg-type]
    data = Data(source=sources, splits=SPLITS, max_bad_rows=1)  # type: ignore[arg-type]
    dataset = load(data, tmp_path, TASK)
    assert len(rows(dataset)) == 20
    (rejected,) = map(json.loads, (tmp_path / "quarantine.jsonl").read_text().splitlines())
    assert (rejected["source"], rejected["line"], rejected["reason"]) == (sources[0]["source"], 14, "empty text")


def test_a_row_that_comes_twice_is_named_by_its_own_file(sources: list[dict[str, Any]], tmp_path: Path) -> None:
    again = {**sources[0], "source": write_csv(tmp_path / "again.csv", labelled(12)[3:4])}
    data = Data(source=[*sources, again], splits=SPLITS, dedup="error")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"\(\S+/kinds.csv:5, \S+/again.csv:2\)"):
        load(data, task=TASK)


def test_what_cannot_be_asked_is_said_in_a_line(sources: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"short.csv has 100 rows, but 101 are asked for: lower its `rows`"):
        load(Data(source=[{**sources[1], "rows": 101}]), task=TASK)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"write \{text\} once"):
        Data(source=[{**sources[0], "prompt": "Which?"}])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="say of each of its sources"):
        Data(source=sources, label="short")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1 item"):
        Data(source=[])  # type: ignore[arg-type]
    data = Data(source=sources)  # type: ignore[arg-type]
    assert source_name(data.source) == " + ".join(one["source"] for one in sources)
    assert Data(**json.loads(data.model_dump_json())) == data
