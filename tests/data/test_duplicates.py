"""No text is in two splits or twice in one, and what went is counted and shown."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from bothways.config import Data
from bothways.data import Dataset, load
from tests.data.writing import labelled, message, write_csv

UNIQUE = [(f"{text} café", label) for text, label in labelled(200)]


def content(dataset: Dataset) -> list[str]:
    return [text for table in (dataset.train, dataset.selection, dataset.test) for text in table["text"].to_pylist()]


def disguised(text: str) -> str:
    """Equal after NFC and strip, but not before."""
    return f" {unicodedata.normalize('NFD', text)} "


def test_every_planted_duplicate_is_found_and_one_of_each_stays(tmp_path: Path) -> None:
    planted = [(disguised(text), label) for text, label in UNIQUE[:60]] + UNIQUE[40:90]
    dataset = load(Data(source=write_csv(tmp_path / "a.csv", [*UNIQUE, *planted])))
    canonical = [unicodedata.normalize("NFC", text).strip() for text in content(dataset)]
    assert sorted(canonical) == sorted(text for text, _ in UNIQUE)
    assert "repeat another row: 110" in dataset.notes[0] and "a.csv:2" in dataset.notes[0]


def test_a_text_with_contradicting_labels_goes_altogether(tmp_path: Path) -> None:
    (text, label), other = UNIQUE[0], {"c0": "c1", "c1": "c0"}
    rows = [*UNIQUE, (disguised(text), other[label]), (text, label)]
    dataset = load(Data(source=write_csv(tmp_path / "a.csv", rows)))
    assert sorted(content(dataset)) == sorted(text for text, _ in UNIQUE[1:])
    assert "have contradicting labels: 3" in dataset.notes[0]


def test_what_test_holds_leaves_selection_and_train_and_what_selection_holds_leaves_train(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", UNIQUE[:100])
    selection = write_csv(tmp_path / "selection.csv", [*UNIQUE[90:120], *UNIQUE[0:2]])
    test = write_csv(tmp_path / "test.csv", [*UNIQUE[110:150], *UNIQUE[2:4]])
    dataset = load(Data(source=train, selection_source=selection, test_source=test))
    assert (dataset.train.num_rows, dataset.selection.num_rows, dataset.test.num_rows) == (100 - 10 - 4, 32 - 10, 42)
    assert len(content(dataset)) == len(set(content(dataset)))
    assert "have a text of a later split: 24" in dataset.notes[0]


def test_a_test_row_stays_even_when_train_labels_it_otherwise(tmp_path: Path) -> None:
    other = {"c0": "c1", "c1": "c0"}
    train = write_csv(tmp_path / "train.csv", UNIQUE[:100])
    test = write_csv(tmp_path / "test.csv", [(text, other[label]) for text, label in UNIQUE[90:100]])
    dataset = load(Data(source=train, test_source=test))
    assert dataset.test.num_rows == 10
    assert dataset.train.num_rows + dataset.selection.num_rows == 90


def test_error_refuses_and_names_lines_and_ways_out(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*UNIQUE, UNIQUE[7]])
    text = message(lambda: load(Data(source=source, dedup="error")))
    assert "repeat another row: 1" in text and "a.csv:9" in text and "a.csv:202" in text
    assert "set data.dedup to drop or keep" in text
    assert load(Data(source=write_csv(tmp_path / "b.csv", UNIQUE), dedup="error")).notes == ()


def test_keep_keeps_and_counts_and_gives_each_row_an_id_of_its_own(tmp_path: Path) -> None:
    dataset = load(Data(source=write_csv(tmp_path / "a.csv", [*UNIQUE, *UNIQUE[:5]]), dedup="keep"))
    assert len(content(dataset)) == 205
    assert "kept duplicates" in dataset.notes[0] and "repeat another row: 5" in dataset.notes[0]
    ids = [i for table in (dataset.train, dataset.selection, dataset.test) for i in table["id"].to_pylist()]
    assert len(set(ids)) == 205


def test_pairs_are_duplicates_only_when_both_texts_are_equal(tmp_path: Path) -> None:
    lines = ["text,other,label", *(f"same,{text},{label}" for text, label in UNIQUE), f"same,{UNIQUE[0][0]},c0"]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    dataset = load(Data(source=str(tmp_path / "a.csv"), pair="other"))
    assert len(content(dataset)) == 200


@pytest.mark.parametrize("change", [str.upper, lambda text: f"{text} !!", lambda text: text.replace(" ", "  ")])
def test_near_duplicates_across_splits_are_counted_with_examples(change: Callable[[str], str], tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", UNIQUE[:100])
    test = write_csv(tmp_path / "test.csv", [(change(text), label) for text, label in UNIQUE[:20]] + UNIQUE[150:160])
    dataset = load(Data(source=train, test_source=test))
    assert dataset.test.num_rows == 30
    (note,) = [note for note in dataset.notes if "case, spaces or punctuation" in note]
    # Selection was drawn from the same file as train, so that each of the twenty has its twin in an earlier split.
    assert "punctuation: 20; such as '" in note
    assert any(change(text) in note for text, _ in UNIQUE[:20])


def test_which_of_two_duplicates_stays_does_not_depend_on_their_order(tmp_path: Path) -> None:
    rows = [*UNIQUE, *((disguised(text), label) for text, label in UNIQUE[:50])]
    ordered = load(Data(source=write_csv(tmp_path / "a.csv", rows)))
    random.Random(0).shuffle(rows)
    shuffled = load(Data(source=write_csv(tmp_path / "b.csv", rows)))
    assert ordered.digest == shuffled.digest
