"""A policy applied to files: all rows, all copies, the same texts as in a training, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bothways import data as datasets
from bothways import policy
from bothways.config import Experiment
from bothways.data.reading import Columns
from bothways.errors import UserError
from bothways.policy import apply as policy_apply
from bothways.policy.apply import Source
from tests import tiny
from tests.text.test_sentences import HOSTILE

SUB_POLICIES = [
    [{"name": "random_swap", "p": 0.3}],
    [{"name": "random_substitution", "p": 0.3}, {"name": "background_noise", "p": 0.1, "schedule": "rising"}],
]


def experiment(n_aug: int = 2, **augment: Any) -> Experiment:
    side = {"augment": {"n_aug": n_aug, "policy": SUB_POLICIES, **augment}}
    return Experiment.model_validate({"seed": 5, "data": {"source": ""}, "input": side})


def source(path: Path, **columns: Any) -> Source:
    return Source(name=str(path), columns=Columns(**({"text": "text", "pair": None, "label": "label"} | columns)))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
    return path


def reviews(path: Path, count: int = 50) -> Path:
    texts = tiny.rows(count, seed=1)["text"].to_pylist()
    return write(path, [{"text": text, "label": row % 2, "other": row} for row, text in enumerate(texts)])


def run(found: Source, of: Experiment, out: Path) -> list[dict[str, Any]]:
    list(policy_apply.apply(found, of, out))
    if out.suffix == ".parquet":
        return pq.read_table(out).to_pylist()  # type: ignore[no-any-return]
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def test_every_row_has_its_original_and_its_copies_with_its_own_label(tmp_path: Path) -> None:
    file = reviews(tmp_path / "in.jsonl")
    before = [json.loads(line) for line in file.read_text().splitlines()]
    rows = run(source(file), experiment(), tmp_path / "out.jsonl")
    assert list(rows[0]) == ["id", "copy", "text", "label"]
    assert [row["copy"] for row in rows] == [0, 1, 2] * 50
    assert [row["label"] for row in rows] == [row["label"] for row in before for _ in range(3)]
    assert [row["text"] for row in rows[::3]] == [row["text"] for row in before]
    assert all(len({row["id"] for row in rows[i : i + 3]}) == 1 for i in range(0, 150, 3))
    assert sum(row["text"] != rows[i - i % 3]["text"] for i, row in enumerate(rows)) > 80
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    found = source(reviews(tmp_path / "in.jsonl"))
    rows = run(found, experiment(keep_original=False), tmp_path / "out.parquet")
    assert rows == run(found, experiment(keep_original=False), tmp_path / "out.jsonl")
    assert [row["copy"] for row in rows] == [1, 2] * 50
    assert pq.read_schema(tmp_path / "out.parquet").field("label").type == pa.int64()


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source(reviews(tmp_path / "in.jsonl"))
    whole = run(found, experiment(), tmp_path / "whole.jsonl")
    for size in (1, 7, 49):
        monkeypatch.setattr(policy_apply, "BLOCK", size)
        assert run(found, experiment(), tmp_path / f"{size}.jsonl") == whole


def test_copies_are_those_that_a_training_reads_in_its_first_epoch(tmp_path: Path) -> None:
    file = reviews(tmp_path / "in.jsonl")
    of = experiment()
    rows = run(source(file), of, tmp_path / "out.jsonl")
    data = of.data.model_copy(update={"source": str(file)})
    dataset = datasets.load(data)
    views = policy_apply.views(dataset.train.select(["id", "text", "pair"]), of)
    everything = pa.concat_tables([dataset.train, dataset.selection, dataset.test])
    read = policy_apply.read(views, of, policy.statistics(everything.sort_by("id"), "en"))
    trained = {(row["id"], row["copy"]): row["text"] for row in read.to_pylist()}
    applied = {(row["id"], row["copy"]): row["text"] for row in rows}
    assert len(trained) > 90
    assert trained.items() <= applied.items()


def test_pairs_and_files_without_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", [{"a": "one two three four", "b": "five six seven eight"}] * 2)
    rows = run(source(file, text="a", pair="b", label=None), experiment(), tmp_path / "out.jsonl")
    assert list(rows[0]) == ["id", "copy", "text", "pair"]
    assert rows[0]["pair"] == "five six seven eight"
    assert rows[:3] == rows[3:]  # equal rows have equal copies
    with pytest.raises(UserError, match="leave `--label none` out"):
        list(Source(name="asset:rotten_tomatoes", columns=Columns("text", None, None)).blocks(9))


def test_unusable_rows_are_listed_and_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", [{"text": "good film", "label": 1}, {"text": " ", "label": 0}, {"label": 1}])
    (*_, done) = policy_apply.apply(source(file), experiment(), tmp_path / "out.jsonl")
    assert (done.read, done.written, done.rejected) == (1, 3, 2)
    listed = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in listed] == [(2, "empty text"), (3, "no field 'text'")]


@pytest.mark.parametrize(
    ("rows", "out", "complaint"),
    [
        ([], "out.jsonl", "in.jsonl: no rows at all"),
        ([{"text": "", "label": 1}], "out.jsonl", "in.jsonl:1: empty text; there is no usable row"),
        ([{"text": "a", "label": 1}], "out.csv", r"unknown kind of file '\.csv'; known: \.jsonl, \.parquet"),
        ([{"text": "a", "label": 1}], "none/out.jsonl", "cannot be written: No such file or directory"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": "x"}], "out.parquet", "the labels are of several types"),
    ],
)
def test_what_fails_is_said_and_leaves_no_file(
    rows: list[dict[str, Any]], out: str, complaint: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "in.jsonl", rows)
    with pytest.raises(UserError, match=complaint):
        list(policy_apply.apply(source(file), experiment(), tmp_path / out))
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", [{"text": "a", "label": 1}])
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(UserError, match=r"out\.jsonl: cannot be written: Is a directory"):
        list(policy_apply.apply(source(file), experiment(), tmp_path / "out.jsonl"))
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_an_interrupted_run_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_apply, "BLOCK", 10)
    running = policy_apply.apply(source(reviews(tmp_path / "in.jsonl")), experiment(), tmp_path / "out.jsonl")
    assert next(running).read == 10
    running.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_apply, "BLOCK", 100)
    monkeypatch.setattr(policy_apply, "COUNTED", 100)

    def peak(count: int) -> int:
        found = source(reviews(tmp_path / f"{count}.jsonl", count))
        tracemalloc.start()
        for _ in policy_apply.apply(found, experiment(), tmp_path / f"out-{count}.jsonl"):
            pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(100)  # what is loaded once
    assert peak(2000) < 1.5 * peak(500)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(HOSTILE | st.just("x" * 5000), min_size=1, max_size=6))
def test_hostile_texts_are_written_or_listed_but_never_lost(texts: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", [{"text": text, "label": 0} for text in ["fine words", *texts]])
    (*_, done) = policy_apply.apply(source(file), experiment(), tmp_path / "out.jsonl")
    assert done.read + done.rejected == len(texts) + 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").split("\n") if line]
    assert len(rows) == done.written == 3 * done.read
    assert all(row["text"].strip() for row in rows)
    originals = [row["text"] for row in rows if row["copy"] == 0]
    assert originals == [text for text in ["fine words", *texts] if text in originals]
