"""Which rows are suggested: the unsure ones, no two alike, whatever the order; and files that somebody fills in."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bothways import data
from bothways.config import Data
from bothways.data.reading import Columns
from bothways.errors import UserError
from bothways.loop import acquisition, label_files
from bothways.loop.acquisition import Row, Seen, Suggestion, entropy, k_means_pp, suggest
from bothways.seeding import F64, keys


class Known:
    """Looks at texts `p x y`: the probability of the second label, and two features."""

    def __init__(self) -> None:
        self.blocks: list[int] = []

    def looked_at(self, texts: list[str], pairs: list[str] | None = None) -> tuple[F64, F64]:
        self.blocks.append(len(texts))
        read = np.array([[float(part) for part in text.split()] for text in texts])
        return np.stack([1 - read[:, 0], read[:, 0]], axis=1), read[:, 1:]


def rows(count: int = 400, seed: int = 0) -> list[Row]:
    draw = np.random.default_rng(seed)
    found = []
    for line in range(1, count + 1):
        p = 0.5 + 0.02 * draw.random() if line % 10 == 0 else 0.98 + 0.02 * draw.random()
        angle = draw.integers(0, 4) * np.pi / 2 + 0.05 * draw.random()
        found.append(Row(line=line, text=f"{p:.4f} {np.cos(angle):.4f} {np.sin(angle):.4f}"))
    return found


def test_unsure_rows_of_all_kinds_are_suggested() -> None:
    found = suggest(Known(), rows(), 8)
    assert len(found) == 8
    assert all(one.uncertainty > 0.99 for one in found[:4])  # one row in ten is
    sides = {tuple(np.round([float(x) for x in one.row.text.split()[1:]]).tolist()) for one in found[:4]}
    assert len(sides) >= 3  # of four; the unsurest four of all would be any


def test_neither_order_nor_blocks_nor_the_pool_change_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    there = rows()
    first = suggest(Known(), there, 12)
    by = Known()
    monkeypatch.setattr(acquisition, "BLOCK", 7)
    assert suggest(by, reversed(there), 12) == first
    assert max(by.blocks) == 7
    assert suggest(Known(), there, 5) == first[:5]
    monkeypatch.setattr(acquisition, "POOL", 40)  # no more than 80 rows are kept, and the 40 unsure ones are among them
    assert {one.row.line % 10 for one in suggest(Known(), there, 12)} == {0}
    assert suggest(Known(), there, 12, seed=1) != suggest(Known(), there, 12)


def test_gradient_embeddings_are_as_far_apart_as_if_they_were_written_out() -> None:
    draw = np.random.default_rng(1)
    p, h = draw.dirichlet(np.ones(3), 30), draw.normal(size=(30, 4))
    outer = p.copy()
    outer[np.arange(30), p.argmax(axis=1)] -= 1
    g = np.einsum("nc,nh->nch", outer, h).reshape(30, -1)
    row_keys = keys("test", np.arange(30))
    chosen = k_means_pp(p, h, row_keys, 6).tolist()
    assert chosen[0] == int((g**2).sum(axis=1).argmax())
    from bothways import seeding

    for count in range(1, 6):  # each next one by the definition, on the vectors themselves
        nearest = ((g[:, None] - g[chosen[:count]][None]) ** 2).sum(axis=2).min(axis=1)
        nearest = np.minimum(nearest, (g**2).sum(axis=1))
        noise = seeding.uniforms(row_keys, count)
        weight = np.where(
            np.isin(np.arange(30), chosen[:count]), -np.inf, np.log(nearest + 1e-300) - np.log(-np.log(noise))
        )
        assert chosen[count] == int(weight.argmax())


def test_rows_that_repeat_each_other_are_still_all_to_be_had() -> None:
    p, h = np.full((5, 2), 0.5), np.ones((5, 3))
    assert sorted(k_means_pp(p, h, keys("same", np.arange(5)), 9).tolist()) == [0, 1, 2, 3, 4]
    assert entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist() == [1.0, 0.0]


def test_a_text_is_suggested_once_and_never_when_it_is_known() -> None:
    seen = Seen()
    seen.add([("Good film!", ""), ("不错的书。", "")])
    texts = ["good  film", "bad film", "Bad film.", "不错 的书", "书不好", "书不好！", "!!!", "???"]
    assert [row.text for row in seen.fresh(Row(line=1, text=text) for text in texts)] == [
        "bad film",
        "书不好",
        "!!!",
        "???",
    ]
    assert seen.left_out == 4


def test_a_file_goes_to_a_spreadsheet_and_back(tmp_path: Path) -> None:
    texts = ['says "good", twice', "two\nlines", "质量很差，再也不买了", "plain", "=1+1"]
    file = tmp_path / "ask.csv"
    asked = [Suggestion(row=Row(line=at, text=text), uncertainty=0.5) for at, text in enumerate(texts, 1)]
    label_files.write(file, asked, paired=False)
    assert file.read_bytes().startswith(b"\xef\xbb\xbf")  # Excel reads it as UTF-8
    assert label_files.answers(file, ["a", "b"], paired=False) == []
    with file.open(encoding="utf-8-sig", newline="") as opened:
        read = list(csv.DictReader(opened))
    assert [row["text"] for row in read] == texts
    for row, label in zip(read, ["a", "b", "a", "", " b "], strict=True):
        row["label"] = label
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        writer = csv.DictWriter(opened, read[0])
        writer.writeheader()
        writer.writerows(read)
    answered = label_files.answers(file, ["a", "b"], paired=False)
    assert [(text, label) for text, _, label in answered] == [*zip(texts[:3], "aba", strict=True), ("=1+1", "b")]
    with pytest.raises(UserError, match=r"ask.csv:2: unknown label 'a': known: c, d"):
        label_files.answers(file, ["c", "d"], paired=False)
    about = {"source": str(file), "splits": {"selection": 1, "test": 1}}
    with pytest.raises(UserError, match="missing label; 1 of 5 rows are unusable"):
        data.load(Data(**about))
    dataset = data.load(Data(**about, max_bad_rows=1))  # what is filled in is data as it stands
    assert sum(dataset.rows(role).num_rows for role in ("train", "selection", "test")) == 4
    label_files.write_labelled(tmp_path / "done.csv", answered, paired=False)
    assert list(label_files.labelled(str(tmp_path / "done.csv"), Columns("text", None, "label"))) == answered
    file.write_bytes("text,label\n质量很差,a\n".encode("gbk"))  # as a spreadsheet saves it that is not told otherwise
    with pytest.raises(UserError, match=r"ask.csv:2: not UTF-8: save it as a csv with commas, in UTF-8"):
        label_files.answers(file, ["a", "b"], paired=False)


def test_rows_that_have_a_label_are_not_unlabelled(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,stars\none,\ntwo,5\n ,\nthree,\n", "utf-8")
    assert [(row.line, row.text) for row in label_files.unlabelled(str(file), label="stars")] == [
        (2, "one"),
        (5, "three"),
    ]
    assert len(label_files.unlabelled(str(file))) == 3
    file.write_text("text,stars\ntwo,5\n", "utf-8")
    with pytest.raises(UserError, match="no usable text without a label"):
        label_files.unlabelled(str(file), label="stars")
