"""Folds are a partition of the training and selection rows, stratified, seeded, and without a row of the test split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from bothways.config import Data, Fold, Splits
from bothways.data import Dataset, folded, load
from tests.data.writing import labelled, message, write_csv

UNEVEN = [(text, "common" if i % 10 else "rare") for i, (text, _) in enumerate(labelled(203))]
OF = 5


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_csv(tmp_path / "a.csv", UNEVEN)


def folds(source: str, repeat: int = 0, seed: int = 0) -> list[Dataset]:
    return [
        load(Data(source=source, split_seed=seed, fold=Fold(of=OF, number=number, repeat=repeat)))
        for number in range(OF)
    ]


def ids(table: pa.Table) -> list[int]:
    return list(table["id"].to_pylist())


def test_every_row_is_selected_by_once_and_trained_on_in_all_other_folds(source: str) -> None:
    whole = load(Data(source=source))
    pool = sorted(ids(whole.train) + ids(whole.selection))
    found = folds(source)
    assert sorted(row for fold in found for row in ids(fold.selection)) == pool
    for fold in found:
        assert sorted(ids(fold.train) + ids(fold.selection)) == pool
        assert fold.test.equals(whole.test)
    sizes = [fold.selection.num_rows for fold in found]
    assert max(sizes) - min(sizes) <= 1


def test_every_fold_has_its_share_of_each_class(source: str) -> None:
    for fold in folds(source):
        counts = Counter(fold.selection["label"].to_pylist())
        assert abs(counts[fold.labels.index("rare")] - fold.selection.num_rows / 10) <= 1


def test_another_repeat_or_seed_divides_the_same_rows_differently(source: str) -> None:
    first, repeated, reseeded = folds(source), folds(source, repeat=1), folds(source, seed=1)
    assert ids(first[0].selection) != ids(repeated[0].selection)
    assert sorted(ids(first[0].train) + ids(first[0].selection)) == sorted(
        ids(repeated[0].train) + ids(repeated[0].selection)
    )
    digests = [fold.digest for several in (first, repeated, reseeded) for fold in several]
    assert len(set(digests)) == len(digests)


def test_a_fold_of_a_loaded_dataset_is_the_fold_that_is_loaded(source: str) -> None:
    fold = Fold(of=OF, number=3, repeat=1)
    loaded, made = load(Data(source=source, fold=fold)), folded(load(Data(source=source)), fold, split_seed=0)
    assert loaded.digest == made.digest
    assert loaded.train.equals(made.train) and loaded.selection.equals(made.selection)


def test_more_folds_than_rows_are_refused(source: str) -> None:
    few = Data(source=source, splits=Splits(train=2, selection=2, test=100), fold=Fold(of=5))
    assert message(lambda: load(few)) == "4 training and selection rows cannot be divided into 5 folds"


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError, match="number 5 is not one of 5 parts"):
        Fold(of=5, number=5)
