"""Text of other domains: text of the target, labelled rows to mix in, clean rows; nothing of a split in any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.config import Data
from bothways.data import Dataset, load
from bothways.errors import UserError
from bothways.registry import TASKS

SPLITS = {"train": 10, "selection": 6, "test": 8}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{"text": f"film {n}", "label": "good" if n % 2 else "bad"} for n in range(40)]
    return write(tmp_path_factory.mktemp("films") / "films.parquet", rows)


def used(dataset: Dataset) -> list[str]:
    return [text for part in (dataset.train, dataset.selection, dataset.test) for text in part["text"].to_pylist()]


def test_text_of_the_target_domain_has_no_text_of_a_split_and_none_twice(films: str, tmp_path: Path) -> None:
    plain = load(Data(source=films, splits=SPLITS))
    taken = used(plain)
    assert len(taken) == 24 and plain.unlabelled.num_rows == 16
    texts = [*taken, *(f" {text}\n" for text in taken), "food b", "food a", "food a", "food a ", "café", "café", " "]
    target = write(tmp_path / "foods.parquet", [{"text": text} for text in texts])
    found = load(Data(source=films, splits=SPLITS, unlabelled_source=target, max_bad_rows=1))
    assert found.unlabelled["text"].to_pylist() == ["café", "food a", "food b"]  # and not the rows that no split uses
    assert found.unlabelled.schema == plain.unlabelled.schema
    assert found.unlabelled["label"].null_count == 3
    assert found.digest != plain.digest
    assert found.train.equals(plain.train) and found.test.equals(plain.test)
    assert any("left out 51 rows that repeat another or a text of the splits" in note for note in found.notes)
    other = write(tmp_path / "others.parquet", [{"text": "food c"}])
    assert load(Data(source=films, splits=SPLITS, unlabelled_source=other)).digest != found.digest


def test_the_labels_of_the_target_are_not_read(films: str, tmp_path: Path) -> None:
    rows = [{"text": f"food {n}", "label": label} for n, label in enumerate(["strange", None, "good"])]
    found = load(Data(source=films, splits=SPLITS, unlabelled_source=write(tmp_path / "a.parquet", rows)))
    assert found.unlabelled["text"].to_pylist() == ["food 0", "food 1", "food 2"]
    assert found.labels == ("bad", "good")


@pytest.mark.slow  # fetches the asset where it is not yet
def test_an_asset_gives_its_training_text_and_not_its_test_rows() -> None:
    foods = Data(source="asset:fine_foods", splits={"train": 100, "selection": 50, "test": 0.99})
    found = load(foods.model_copy(update={"unlabelled_source": "asset:fine_foods"}))
    assert 3500 < found.unlabelled.num_rows < 3850
    assert not set(used(found)) & set(found.unlabelled["text"].to_pylist())


def test_pairs_of_the_target_are_read_as_pairs(tmp_path: Path) -> None:
    rows = [{"text": f"film {n // 2}", "pair": f"about {n}", "label": str(n % 2)} for n in range(40)]
    source = write(tmp_path / "a.parquet", rows)
    target = write(
        tmp_path / "b.parquet",
        [{"text": f"film {n}", "pair": "about food"} for n in range(20)] + [{"text": "new", "pair": "x"}],
    )
    found = load(Data(source=source, pair="pair", splits=SPLITS, unlabelled_source=target))
    left = list(zip(found.unlabelled["text"].to_pylist(), found.unlabelled["pair"].to_pylist(), strict=True))
    assert ("new", "x") in left
    assert not {text for text, _ in left} & set(used(found))


def test_nothing_left_is_an_error(films: str) -> None:
    with pytest.raises(UserError, match="has no text that is not in the splits already"):
        load(Data(source=films, splits={"train": 26, "selection": 6, "test": 8}, unlabelled_source=films))


def test_rows_without_a_class_are_not_mixed(tmp_path: Path) -> None:
    rows = [{"text": f"film {n}", "label": n / 7} for n in range(30)]
    source = write(tmp_path / "a.parquet", rows)
    data = Data(source=source, splits=SPLITS, mix=[{"source": source}])
    with pytest.raises(UserError, match="mixes in rows with one class as their label"):
        load(data, task=TASKS.build("regression"))


def test_rows_to_mix_in_have_our_labels_and_no_text_of_a_split(films: str, tmp_path: Path) -> None:
    plain = load(Data(source=films, splits=SPLITS))
    rows = [{"text": f"food {n}", "label": "great" if n % 2 else "poor"} for n in range(6)]
    rows += [{"text": plain.test["text"][0].as_py(), "label": "great"}, {"text": "food 1 ", "label": "great"}]
    foods = write(tmp_path / "foods.parquet", rows)
    data = Data(source=films, splits=SPLITS, mix=[{"source": foods, "labels": {"great": "good", "poor": "bad"}}])
    found = load(data)
    (mixed,) = found.mixed
    assert mixed["text"].to_pylist() == [f"food {n}" for n in range(6)]
    assert mixed["label"].to_pylist() == [0, 1, 0, 1, 0, 1]
    assert mixed.schema == found.train.schema
    assert found.train.equals(plain.train) and found.digest != plain.digest
    turned = write(tmp_path / "turned.parquet", rows[::-1])
    again = load(data.model_copy(update={"mix": [data.mix[0].model_copy(update={"source": turned})]}))
    assert again.digest == found.digest  # what is in a file counts, not where in it
    with pytest.raises(UserError, match=r"rows labelled great, poor, .* has bad, good: say under `labels`"):
        load(data.model_copy(update={"mix": [data.mix[0].model_copy(update={"labels": {}})]}))


def test_clean_rows_have_our_labels_for_any_task_and_no_text_of_a_split(films: str, tmp_path: Path) -> None:
    plain = load(Data(source=films, splits=SPLITS))
    rows = [{"text": f"clean {n}", "label": "good" if n % 2 else "bad"} for n in range(6)]
    rows += [{"text": part["text"][0].as_py(), "label": "good"} for part in (plain.train, plain.selection, plain.test)]
    data = Data(source=films, splits=SPLITS, clean_source=write(tmp_path / "clean.parquet", rows))
    found = load(data)
    assert found.clean is not None and found.clean.schema == plain.train.schema
    assert found.clean["text"].to_pylist() == [f"clean {n}" for n in range(6)]
    assert found.clean["label"].to_pylist() == [0, 1, 0, 1, 0, 1]
    assert found.train.equals(plain.train) and found.digest != plain.digest
    assert plain.clean is None and plain.rows("clean").num_rows == 0
    other = write(tmp_path / "other.parquet", [{"text": "clean 0", "label": "strange"}])
    with pytest.raises(UserError, match="unknown label 'strange'"):
        load(data.model_copy(update={"clean_source": other}))
    numbers = write(tmp_path / "numbers.parquet", [{"text": f"film {n}", "label": n / 7} for n in range(40)])
    scored = Data(source=numbers, splits=SPLITS, clean_source=numbers)
    regression = load(scored, task=TASKS.build("regression"))
    assert regression.clean is not None and regression.clean.num_rows == 16
