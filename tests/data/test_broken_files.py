"""A file that cannot be used is one line: which file, which line, what, how many, and the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.config import Data
from bothways.data import load
from tests.data.writing import labelled, message, write_csv

GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in labelled(20))

BROKEN: dict[str, tuple[str, bytes, dict[str, Any], tuple[str, ...]]] = {
    "the suffix is unknown": ("a.xlsx", b"PK", {}, ("'.xlsx'", ".csv, .jsonl, .parquet, .tsv")),
    "the file is empty": ("a.csv", b"", {}, ("a.csv:1", "the file is empty")),
    "there is only a header": ("a.csv", b"text,label\n", {}, ("no rows at all",)),
    "a column is missing": ("a.csv", GOOD.encode(), {"text": "review"}, ("a.csv:1", "'review'", "'text', 'label'")),
    "there is no header": ("a.tsv", b"0\tbad\n1\tgood\n", {}, ("no column 'text'", "'0', 'bad'", "`label: 0`")),
    "a header names a column twice": ("a.csv", b"text,text,label\n", {}, ("two columns 'text'",)),
    "a position is too high": ("a.tsv", b"0\tbad\n", {"text": 2, "label": 0}, ("positions from 0 to 1",)),
    "a position stands beside a name": ("a.tsv", b"0\tbad\n", {"text": 1}, ("all of them as positions",)),
    "a quote never closes": ("a.csv", b'text,label\nfine,c0\n"open,c1\nfine,c0\n', {}, ("a.csv:3", "never closed")),
    "it is UTF-16": ("a.csv", GOOD.encode("utf-16"), {}, ("a.csv:1", "save the file as UTF-8")),
    "it is UTF-16 that does not say so": (
        "a.csv",
        GOOD.encode("utf-16-le"),
        {},
        ("a.csv:1", "the header is not UTF-8"),
    ),
    "its header is GBK": (
        "a.csv",
        "评论,label\n".encode("gbk"),
        {"text": "评论"},
        ("a.csv:1", "the header is not UTF-8"),
    ),
    "every row is dropped": (
        "a.csv",
        b"text,label\nsame,a\nsame,b\n",
        {},
        ("no row is left", "have contradicting labels: 2", "'same'"),
    ),
    "it is not parquet": ("a.parquet", GOOD.encode(), {}, ("not a parquet file",)),
    "a position is given for named columns": ("a.jsonl", b"{}\n", {"text": 0}, ("column 0", "give the name")),
    "all rows have one label": ("a.csv", b"text,label\na,c0\nb,c0\n", {}, ("one label, 'c0'", "2 usable rows")),
    "the label column is another column": (
        "a.csv",
        ("text,label\n" + "".join(f"t{i},{i}\n" for i in range(2000))).encode(),
        {},
        ("2,000 different labels", "is data.label the right column?"),
    ),
    "too many rows are unusable": (
        "a.csv",
        GOOD.encode() + b",c0\nfine,\n",
        {},
        ("a.csv:22", "empty text", "2 of 22 rows", "data.max_bad_rows 0.01"),
    ),
    "every line of JSON is broken": ("a.jsonl", b"{'text': 1}\n", {}, ("a.jsonl:1", "broken JSON", "1 of 1")),
    "JSON fields have other names": (
        "a.jsonl",
        b'{"txt": "a", "label": 1}\n',
        {},
        ("a.jsonl:1", "no field 'text'"),
    ),
    "the splits want more than there is": (
        "a.csv",
        GOOD.encode(),
        {"splits": {"train": 10, "selection": 10, "test": 10}},
        ("20 usable rows", "train 10 + selection 10 + test 10"),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_it_is_one_clear_line_when(case: str, tmp_path: Path) -> None:
    name, content, options, expected = BROKEN[case]
    file = tmp_path / name
    file.write_bytes(content)
    text = message(lambda: load(Data(source=str(file), **options)))
    assert str(file) in text
    for part in expected:
        assert part in text
    assert len(text) < 400 + len(str(file))


def test_it_is_one_clear_line_when_a_parquet_column_is_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"texts": ["a"], "label": ["b"]}), tmp_path / "a.parquet")
    assert "did you mean 'texts'" in message(lambda: load(Data(source=str(tmp_path / "a.parquet"))))


def test_it_is_one_clear_line_when_a_parquet_file_has_a_column_twice(tmp_path: Path) -> None:
    columns = [pa.array(["a", "b"])] * 3
    pq.write_table(pa.table(columns, names=["text", "label", "text"]), tmp_path / "a.parquet")
    assert "two columns 'text'" in message(lambda: load(Data(source=str(tmp_path / "a.parquet"))))


def test_it_is_one_clear_line_when_a_parquet_file_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(999)], "label": ["a", "b", "c"] * 333}), file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "not a parquet file" in message(lambda: load(Data(source=str(file))))


def test_it_is_one_clear_line_when_the_file_is_elsewhere(tmp_path: Path) -> None:
    write_csv(tmp_path / "reviews.csv", labelled(20))
    assert "did you mean 'reviews.csv'" in message(lambda: load(Data(source=str(tmp_path / "review.csv"))))
    (tmp_path / "folder.csv").mkdir()
    assert "not a file" in message(lambda: load(Data(source=str(tmp_path / "folder.csv"))))


def test_it_is_one_clear_line_when_an_asset_is_not_labelled_text() -> None:
    assert "'wordnet' is a lexicon" in message(lambda: load(Data(source="asset:wordnet")))
    assert "leave data.pair out" in message(lambda: load(Data(source="asset:rotten_tomatoes", pair="other")))


def test_it_is_one_clear_line_when_the_hub_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    text = message(lambda: load(Data(source="hf:some-org/some-data@0123abc")))
    assert "hf:some-org/some-data@0123abc cannot be had" in text and "HF_HUB_OFFLINE" in text


def test_the_error_about_bad_rows_says_where_all_of_them_are_listed(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [("", "c0"), ("fine", ""), *labelled(10)])
    text = message(lambda: load(Data(source=source), tmp_path / "out"))
    listed = tmp_path / "out" / "quarantine.jsonl"
    assert str(listed) in text
    assert [json.loads(line)["line"] for line in listed.read_text().splitlines()] == [2, 3]
