"""Real assets and hub datasets arrive with their own splits."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.config import Data, Splits
from bothways.data import load, sources
from bothways.data.checking import check
from bothways.data.dataset import _digest
from bothways.data.reading import Columns
from bothways.errors import UserError
from tests.data.writing import labelled


def test_rotten_tomatoes_is_divided_after_its_56_repetitions_are_gone() -> None:
    splits = Splits(train=300, selection=400, test=1000)
    dataset = load(Data(source="asset:rotten_tomatoes", splits=splits))
    assert (dataset.train.num_rows, dataset.selection.num_rows, dataset.test.num_rows) == (300, 400, 1000)
    assert dataset.labels == ("fresh", "rotten")
    assert any("repeat another row: 56" in note for note in dataset.notes)
    assert any("of 12,752 rows; 11,052 unused" in note for note in dataset.notes)
    # 7,403 of 12,808 reviews are fresh: 578 of 1,000.
    assert abs(dataset.test["label"].to_pylist().count(0) - 578) <= 1


def test_text_without_a_label_is_what_no_split_uses_and_what_the_source_has() -> None:
    dataset = load(Data(source="asset:rotten_tomatoes", splits=Splits(train=300, selection=400, test=1000)))
    texts = dataset.unlabelled["text"].to_pylist()
    assert len(texts) == 11_052 + 1_097 - 14  # plots that are empty
    used = {text for split in ("train", "selection", "test") for text in getattr(dataset, split)["text"].to_pylist()}
    assert not used & set(texts)
    assert dataset.unlabelled["pair"].null_count == len(texts)


def test_a_test_text_is_never_among_the_unlabelled(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "pair": pair, "label": i % 2} for i in range(40) for pair in ("one", "another")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    data = Data(source=str(tmp_path / "a.parquet"), pair="pair", splits=Splits(train=10, selection=4, test=20))
    dataset = load(data)
    left = _pairs(dataset.unlabelled)
    tested = set(dataset.test["text"].to_pylist())
    drawn = [row for split in (dataset.train, dataset.selection, dataset.test) for row in _pairs(split)]
    everything = [(row["text"], row["pair"]) for row in rows]
    assert left == sorted(row for row in set(everything) - set(drawn) if row[0] not in tested)
    assert len(left) > 10
    none_left = load(data.model_copy(update={"splits": Splits(train=10, selection=4, test=66)}))
    assert none_left.unlabelled.num_rows == 0 and none_left.unlabelled.schema == dataset.unlabelled.schema


def _pairs(rows: pa.Table) -> list[tuple[str, str]]:
    return list(zip(rows["text"].to_pylist(), rows["pair"].to_pylist(), strict=True))


def test_unlabelled_text_is_part_of_what_a_dataset_is() -> None:
    dataset = load(Data(source="asset:reuters_r8"))
    tables = {"train": dataset.train, "selection": dataset.selection, "test": dataset.test}
    extra = pa.table({"text": ["one more"], "pair": pa.nulls(1, pa.string())})
    assert dataset.unlabelled.num_rows == 0
    assert _digest(tables, dataset.unlabelled, dataset.labels, {}) == dataset.digest
    assert _digest(tables, extra, dataset.labels, {}) != dataset.digest


def test_reuters_r8_keeps_its_own_test_split() -> None:
    dataset = load(Data(source="asset:reuters_r8", dedup="keep"))
    assert dataset.test.num_rows == 2189
    assert dataset.train.num_rows + dataset.selection.num_rows == 5485
    assert dataset.labels == ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
    dropped = load(Data(source="asset:reuters_r8"))
    assert dropped.test.num_rows == 2176  # 13 of the published rows repeat another
    train = set(dropped.train["text"].to_pylist()) | set(dropped.selection["text"].to_pylist())
    assert not train & set(dropped.test["text"].to_pylist())


def test_an_asset_serves_as_the_test_source_of_a_file(tmp_path: Path) -> None:
    rows = [(text, "acq" if i % 2 else "earn") for i, (text, _) in enumerate(labelled(40))]
    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [c for _, c in rows]}), tmp_path / "a.parquet")
    dataset = load(Data(source=str(tmp_path / "a.parquet"), test_source="asset:reuters_r8", max_bad_rows=0.5))
    assert dataset.test.num_rows > 1500
    assert dataset.labels == ("acq", "earn")


def test_hub_datasets_arrive_with_the_names_of_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    for split, labels in {"train": [0, 1, -1], "validation": [1, 0], "test": [-1, -1]}.items():
        rows = {"sentence": [f"{split} {i}" for i in range(len(labels))], "label": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    found = sources.hub_dataset(str(tmp_path), None, None)
    columns = Columns("sentence", None, "label")
    assert sources._unlabelled(found["test"], columns) and not sources._unlabelled(found["train"], columns)
    rows = check("hub", sources._hub_records("hub", found["train"], columns))
    assert (rows.texts, rows.labels) == (["train 0", "train 1"], ["neg", "pos"])
    assert [(item.line, item.reason) for item in rows.rejected] == [(3, "missing label")]


def test_an_asset_s_other_column_may_be_the_label_and_no_unknown_one_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [{"text": f"text {i}", "label": "topic", "target": f"summary {i}"} for i in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sources, "resolve", lambda source: tmp_path)

    def labels(columns: Columns, name: str = "debian_packages") -> list[str]:
        return [values[1] for _, values in sources.parts(f"asset:{name}", columns)["train"]]

    assert labels(Columns("text", None, "label")) == ["topic"] * 3
    assert labels(Columns("text", None, "target")) == ["summary 0", "summary 1", "summary 2"]
    with pytest.raises(UserError, match=r"no column 'summary' for data\.label, only label, target"):
        labels(Columns("text", None, "summary"))
    with pytest.raises(UserError, match=r"'spamassassin' has no column 'target' for data\.label, only label"):
        labels(Columns("text", None, "target"), "spamassassin")
    with pytest.raises(UserError, match=r"no column 'body' for data\.text, only text$"):
        labels(Columns("body", None, "label"))


def test_rows_without_the_text_that_is_asked_for_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kinds = ("summary", "description")
    rows = [{"text": f"text {i}", "label": kinds[i % 2], "target": f"{i}", kinds[i % 2]: f"text {i}"} for i in range(5)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sources, "resolve", lambda source: tmp_path)
    found = [values for _, values in sources.parts("asset:debian_zh", Columns("summary", None, "target"))["train"]]
    assert found == [["text 0", "0"], ["text 2", "2"], ["text 4", "4"]]
    with pytest.raises(UserError, match=r"'debian_zh' has no column 'title' for data\.text, only text, summary, desc"):
        sources.parts("asset:debian_zh", Columns("title", None, "target"))


def test_an_asset_of_pairs_is_read_by_the_names_of_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    label = {"text": ["chess"], "answer_start": [7]}
    row = {"question": "a game of ___", "passage": "It has chess in it.", "label": label, "source": "x"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(sources, "resolve", lambda source: tmp_path)
    found = sources.parts("asset:debian_cloze", Columns("question", "passage", "label"))
    assert list(found["train"]) == [(1, ["a game of ___", "It has chess in it.", label])]
    for text, pair in (("text", None), ("question", None), ("passage", "question")):
        with pytest.raises(UserError, match=r"set data\.text to question and data\.pair to passage"):
            sources.parts("asset:debian_cloze", Columns(text, pair, "label"))
