"""Splits are exact, stratified, disjoint, and depend on contents and seed only."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bothways.config import Data, Splits
from bothways.data import Dataset, load
from bothways.data.splitting import apportion, draw, row_ids
from tests.data.writing import labelled, message, write_csv

UNEVEN = [(text, "common" if i % 10 else "rare") for i, (text, _) in enumerate(labelled(400))]


def ids(table: pa.Table) -> list[int]:
    return list(table["id"].to_pylist())


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    return dataset.train.num_rows, dataset.selection.num_rows, dataset.test.num_rows


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_csv(tmp_path / "a.csv", UNEVEN)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({}, (320, 40, 40)),
        ({"train": 100, "selection": 50, "test": 150}, (100, 50, 150)),
        ({"train": 100}, (100, 40, 40)),
        ({"train": 0.5, "selection": 10, "test": 0.25}, (200, 10, 100)),
        ({"train": 0.25, "selection": 0.25, "test": 0.5}, (100, 100, 200)),
    ],
)
def test_counts_and_shares_are_met_to_the_row_and_in_proportion(
    splits: dict[str, Any], expected: tuple[int, int, int], source: str
) -> None:
    dataset = load(Data(source=source, splits=Splits(**splits)))
    assert sizes(dataset) == expected
    for table in (dataset.train, dataset.selection, dataset.test):
        rare = Counter(table["label"].to_pylist())[dataset.labels.index("rare")]
        assert abs(rare - table.num_rows / 10) < 1


def test_no_row_is_in_two_splits_and_ids_come_from_contents(source: str) -> None:
    dataset = load(Data(source=source))
    everything = ids(dataset.train) + ids(dataset.selection) + ids(dataset.test)
    assert len(set(everything)) == 400
    assert all(0 <= i < 2**63 for i in everything)
    text, label = dataset.test["text"][0].as_py(), dataset.labels[dataset.test["label"][0].as_py()]
    assert row_ids([(text, "", label)]).tolist() == [dataset.test["id"][0].as_py()]


def test_the_order_of_the_file_and_its_format_do_not_matter(source: str, tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(UNEVEN, len(UNEVEN))
    (tmp_path / "b.tsv").write_text("".join(f"{label}\t{text}\n" for text, label in shuffled))
    first = load(Data(source=source))
    second = load(Data(source=str(tmp_path / "b.tsv"), text=1, label=0))
    assert first.digest == second.digest
    assert first.train.equals(second.train) and first.test.equals(second.test)
    assert len(first.digest) == 64


def test_another_seed_is_another_draw_of_the_same_rows(source: str) -> None:
    first, second = (load(Data(source=source, split_seed=seed)) for seed in (0, 1))
    assert first.digest != second.digest
    assert sizes(first) == sizes(second)
    assert set(ids(first.test)) != set(ids(second.test))
    everything = [set(ids(d.train) + ids(d.selection) + ids(d.test)) for d in (first, second)]
    assert everything[0] == everything[1]


def test_one_changed_character_changes_the_digest(source: str, tmp_path: Path) -> None:
    changed = [*UNEVEN[:-1], (UNEVEN[-1][0] + ".", UNEVEN[-1][1])]
    assert load(Data(source=source)).digest != load(Data(source=write_csv(tmp_path / "b.csv", changed))).digest


def test_more_training_rows_leave_selection_and_test_as_they_were_and_add_to_train(source: str) -> None:
    small, large = (load(Data(source=source, splits=Splits(train=n))) for n in (100, 200))
    assert small.selection.equals(large.selection) and small.test.equals(large.test)
    assert set(ids(small.train)) < set(ids(large.train))


def test_a_class_as_rare_as_there_are_splits_is_in_each(tmp_path: Path) -> None:
    rows = [(text, "rare" if i < 3 else "common") for i, (text, _) in enumerate(labelled(1000))]
    dataset = load(Data(source=write_csv(tmp_path / "a.csv", rows)))
    for table in (dataset.train, dataset.selection, dataset.test):
        assert Counter(table["label"].to_pylist())[dataset.labels.index("rare")] == 1
    assert dataset.notes == ()


def test_a_class_of_one_row_is_left_to_train_and_said(tmp_path: Path) -> None:
    rows = [(text, "rare" if i < 1 else "common") for i, (text, _) in enumerate(labelled(1000))]
    dataset = load(Data(source=write_csv(tmp_path / "a.csv", rows)))
    assert dataset.labels.index("rare") in dataset.train["label"].to_pylist()
    assert set(dataset.notes) == {"selection has no row labelled rare", "test has no row labelled rare"}


def test_a_source_of_its_own_is_taken_whole_or_by_count(source: str, tmp_path: Path) -> None:
    test = write_csv(tmp_path / "test.csv", [(f"new {text}", label) for text, label in UNEVEN[:100]])
    assert sizes(load(Data(source=source, test_source=test))) == (360, 40, 100)
    dataset = load(Data(source=source, test_source=test, splits=Splits(test=30, selection=0.5)))
    assert sizes(dataset) == (200, 200, 30)
    assert Counter(dataset.test["label"].to_pylist())[dataset.labels.index("rare")] == 3
    text = message(lambda: load(Data(source=source, test_source=test, splits=Splits(test=101))))
    assert "test.csv has 100 usable rows" in text and "test 101" in text


def test_unused_rows_are_mentioned(source: str) -> None:
    dataset = load(Data(source=source, splits=Splits(train=10, selection=20, test=30)))
    assert dataset.notes[0].endswith("30 test, 20 selection, 10 train of 400 rows; 340 unused")


def test_splits_that_leave_nothing_to_train_are_refused(source: str) -> None:
    text = message(lambda: load(Data(source=source, splits=Splits(selection=200, test=200))))
    assert "400 usable rows" in text and "train 1 + selection 200 + test 200" in text


@pytest.mark.parametrize("size", [0, -1, 1.5, 0.0, -0.5])
def test_a_split_is_a_count_or_a_share_and_nothing_else(size: float) -> None:
    with pytest.raises(ValidationError, match="a split is a count of rows"):
        Splits(test=size)


@settings(max_examples=200, deadline=None)
@given(
    available=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    share=st.floats(0, 1),
    reserve=st.integers(0, 2),
)
def test_apportionment_is_exact_possible_and_leaves_no_class_out(
    available: list[int], share: float, reserve: int
) -> None:
    rows = np.array(available, dtype=np.int64)
    size = int(share * rows.sum())
    taken = apportion(size, rows, reserve)
    assert taken.sum() == size
    assert (taken >= 0).all() and (taken <= rows).all()
    able = np.clip(rows - reserve, 0, None)
    if able.sum() >= size >= np.count_nonzero(able):
        assert (taken <= able).all() and (taken[able > 0] > 0).all()


def test_draws_are_disjoint_and_follow_the_keys() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.int64)
    keys = np.array([7, 1, 5, 3, 2, 8, 4, 6], dtype=np.uint64)
    first, second = draw(labels, keys, [2, 4])
    assert first.tolist() == [1, 4]  # the smallest key of each class, in the order of the keys
    assert second.tolist() == [3, 6, 2, 7]
