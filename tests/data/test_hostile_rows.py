"""Hostile rows go to quarantine, each with its line and its reason, and the good ones beside them are all kept."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bothways.config import Data
from bothways.data import Dataset, load
from tests.data.writing import labelled, message, texts, write_csv

GOOD = labelled(30)
BIG = "x" * 10_000_000
BOM = b"\xef\xbb\xbf"

BAD_DELIMITED = [  # (line of a tsv file, reason)
    (b"\xff\xfe broken\tc0", "not UTF-8"),
    (b"\tc0", "empty text"),
    ("\u3000 \tc0".encode(), "empty text"),
    (BIG.encode() + b"\tc0", "text over 1 MB (10,000,000 bytes)"),
    (b"no label\t", "missing label"),
    (b"a \0 in it\tc0", "NUL character"),
    (b"a surrogate \xed\xa0\x80\tc0", "not UTF-8"),
    (b"broken label\t\xff", "not UTF-8 in the label"),
    (b"too\tmany\tc0", "3 columns instead of 2"),
    (b"too few", "1 columns instead of 2"),
]
BAD_JSON = [
    (b'{"text": "a", "label"', "broken JSON"),
    (b"[" * 100_000, "broken JSON"),
    (b'["text", "label"]', "a JSON list where an object belongs"),
    (b'{"text": "no label"}', "no field 'label'"),
    (b'{"text": null, "label": "c0"}', "missing text"),
    (b'{"text": 5, "label": "c0"}', "a int where text belongs"),
    (b'{"text": "no label", "label": null}', "missing label"),
    (b'{"text": "no label", "label": NaN}', "missing label"),
    (b'{"text": "half \\ud83d of a pair", "label": "c0"}', "lone surrogate"),
    (b'{"text": "a \\u0000 in it", "label": "c0"}', "NUL character"),
    (b'{"text": "\xff", "label": "c0"}', "not UTF-8"),
]


def quarantined(dataset: Dataset, folder: Path, good: int) -> list[tuple[int, str]]:
    """(line, reason) of the quarantine file, after checking that nothing was lost."""
    rows = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert dataset.train.num_rows + dataset.selection.num_rows + dataset.test.num_rows == good
    assert f"{len(rows)} rows rejected" in dataset.notes[0] and f"{good} accepted" in dataset.notes[0]
    assert all(len(row["excerpt"]) <= 80 for row in rows)
    return [(row["line"], row["reason"]) for row in rows]


def test_in_a_tsv(tmp_path: Path) -> None:
    good = [f"{text}\t{label}".encode() for text, label in GOOD]
    bad = [line for line, _ in BAD_DELIMITED]
    lines = [b"text\tlabel", *good[:10], *bad, *good[10:]]
    (tmp_path / "a.tsv").write_bytes(BOM + b"\n".join(lines))
    dataset = load(Data(source=str(tmp_path / "a.tsv"), max_bad_rows=len(bad)), tmp_path)
    assert quarantined(dataset, tmp_path, 30) == [(12 + i, reason) for i, (_, reason) in enumerate(BAD_DELIMITED)]


def test_in_jsonl(tmp_path: Path) -> None:
    good = [json.dumps({"text": text, "label": label}).encode() for text, label in GOOD]
    bad = [line for line, _ in BAD_JSON]
    (tmp_path / "a.jsonl").write_bytes(BOM + b"\r\n".join([*good[:10], b"", *bad, *good[10:]]))
    dataset = load(Data(source=str(tmp_path / "a.jsonl"), max_bad_rows=len(bad)), tmp_path)
    found = quarantined(dataset, tmp_path, 30)
    assert [line for line, _ in found] == list(range(12, 12 + len(bad)))
    for (_, reason), (_, expected) in zip(found, BAD_JSON, strict=True):
        assert reason.startswith(expected)


def test_in_csv_the_line_is_right_after_quoted_line_breaks(tmp_path: Path) -> None:
    lines = ["text,label"]
    lines += [f'"{text}, he said ""no"",\nand left",{label}' for text, label in GOOD]  # lines 2 to 61
    lines += [",c0", "", '"closed"too early,c0', '"two\nlines",', "fine,c0"]
    (tmp_path / "a.csv").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    dataset = load(Data(source=str(tmp_path / "a.csv"), max_bad_rows=0.5), tmp_path)
    found = quarantined(dataset, tmp_path, 31)
    assert [line for line, _ in found] == [62, 64, 65]  # 63 is blank: no row
    assert found[0][1] == "empty text" and found[1][1].startswith("broken csv") and found[2][1] == "missing label"
    everything = pa.concat_tables([dataset.train, dataset.selection, dataset.test])
    assert f'{GOOD[0][0]}, he said "no",\nand left' in everything["text"].to_pylist()


def test_in_parquet(tmp_path: Path) -> None:
    broken = pa.array([text.encode() for text, _ in GOOD] + [b"\xff", None, b" "], pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(broken), broken.buffers())  # says it is text, and is not
    labels = pa.array([label for _, label in GOOD] + ["c0"] * 3).dictionary_encode()
    pq.write_table(pa.table({"other": range(33), "text": column, "label": labels}), tmp_path / "a.parquet")
    dataset = load(Data(source=str(tmp_path / "a.parquet"), max_bad_rows=3), tmp_path)
    assert quarantined(dataset, tmp_path, 30) == [(31, "not UTF-8"), (32, "missing text"), (33, "empty text")]


def test_numbers_and_booleans_are_labels_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": texts(40), "label": [i % 3 for i in range(40)]}), tmp_path / "a.parquet")
    assert load(Data(source=str(tmp_path / "a.parquet"))).labels == ("0", "1", "2")
    lines = [json.dumps({"text": text, "label": i % 2 == 0}) for i, text in enumerate(texts(40))]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert load(Data(source=str(tmp_path / "a.jsonl"))).labels == ("False", "True")


def test_a_label_that_train_does_not_know_is_a_reason(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", labelled(40))
    test = write_csv(tmp_path / "test.csv", [*labelled(10, start=40), ("strange", "c9")])
    dataset = load(Data(source=train, test_source=test, max_bad_rows=1), tmp_path)
    assert (dataset.train.num_rows, dataset.selection.num_rows, dataset.test.num_rows) == (36, 4, 10)
    (row,) = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert row == {"source": test, "line": 12, "reason": "unknown label 'c9'", "excerpt": "strange"}


@pytest.mark.parametrize(("limit", "passes"), [(0, False), (1, False), (2, True), (0.01, False), (0.07, True)])
def test_the_limit_is_a_count_or_a_share(limit: float, passes: bool, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*GOOD, ("", "c0"), ("", "c1")])  # 2 of 32: 6.25 %
    if passes:
        assert load(Data(source=source, max_bad_rows=limit)).train.num_rows == 24
    else:
        assert "2 of 32 rows" in message(lambda: load(Data(source=source, max_bad_rows=limit)))


def test_a_clean_file_leaves_no_quarantine_behind(tmp_path: Path) -> None:
    (tmp_path / "quarantine.jsonl").write_text("from an earlier run")
    dataset = load(Data(source=write_csv(tmp_path / "a.csv", GOOD)), tmp_path)
    assert dataset.notes == ()
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_pairs_are_two_texts_and_both_must_be_there(tmp_path: Path) -> None:
    lines = ["text,other,label", *(f"{text},answer {i},{label}" for i, (text, label) in enumerate(GOOD)), "lonely,,c0"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    dataset = load(Data(source=str(tmp_path / "a.csv"), pair="other", max_bad_rows=1))
    assert dataset.train["pair"].null_count == 0
    assert all(pair.startswith("answer ") for pair in dataset.train["pair"].to_pylist())
    single = load(Data(source=str(tmp_path / "a.csv")))
    assert single.train["pair"].null_count == single.train.num_rows
    assert single.train.schema == dataset.train.schema
