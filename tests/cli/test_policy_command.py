"""`bothways policy`: what it shows, on a terminal and elsewhere, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from rich.console import Console

from bothways import cli
from bothways.cli import preview
from bothways.cli.difference import MOST_PIECES, Change, changes, coloured, marked, printable
from tests.text.test_sentences import HOSTILE

POLICY = """\
language: en
input:
  augment:
    n_aug: 2
    policy:
      - - {name: random_deletion, p: 0.3, schedule: [[0, 0], [0.5, 1]]}
        - {name: background_noise, p: 0.2, kinds: [emoji], probability: 0.5}
      - - {name: random_swap, p: 0.5}
"""
ROWS = [("a truly moving film with good actors", "pos"), ("[red]the plot\u202e was bad and \x1b[31m sad", "neg")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "zh.yaml").write_text(POLICY.replace("language: en", "language: zh"))
    rows = [{"text": text, "label": label} for text, label in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "zh.csv").write_text("text,label\n这部电影真好看，我很喜欢,好\n房间很大,好\n", encoding="utf-8")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, list[str]]:
    code = cli.run(["policy", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def test_a_policy_is_shown_with_every_operation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "show", folder / "policy.yaml", "--format", "md")
    assert (code, err) == (0, [])
    assert "policy.yaml: 2 copies of a row; originals kept; 2 sub-policies, one drawn for each copy;" in out
    assert "| 1 | random_deletion | 1 | 0.3 | 0 from 0%, 1 from 50% |  |" in out
    assert "| 1 | background_noise | 0.5 | 0.2 | constant | kinds: emoji |" in out
    rows = json.loads(call(capsys, "show", folder / "policy.yaml", "--format", "json")[1])
    assert [row["operation"] for row in rows] == ["random_deletion", "background_noise", "random_swap"]


def test_a_policy_that_changes_nothing_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "none.yaml").write_text("input: {augment: {n_aug: 0}}\n")
    assert "so nothing is changed" in call(capsys, "show", folder / "none.yaml")[1]
    code, _, err = call(capsys, "preview", folder / "none.yaml", "--data", folder / "rows.jsonl")
    assert (code, err) == (2, ["error: this policy changes nothing: it has no operations"])


def test_a_preview_in_a_pipe_has_marks_and_no_escapes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "preview", folder / "policy.yaml", "--data", folder / "rows.jsonl", "-n", "2")
    assert (code, err) == (0, [])
    assert "\x1b" not in out and "\u202e" not in out
    assert "row 1, label pos\n  copy 1 (" in out and "\n  copy 2 (" in out
    assert "[-" in out and "[red]the plot\\u202e" in out.replace("[-", "").replace("-]", "")
    assert "of 4 texts changed, by " in out
    assert call(capsys, "preview", folder / "policy.yaml", "--data", folder / "rows.jsonl")[1] == out  # seeded
    other = call(capsys, "preview", folder / "policy.yaml", "--data", folder / "rows.jsonl", "--seed", "9")[1]
    assert other != out


def test_a_preview_on_a_terminal_is_a_table_in_colours(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        preview, "Console", lambda **more: Console(force_terminal=True, width=100, color_system="standard", **more)
    )
    code, out, _ = call(capsys, "preview", folder / "zh.yaml", "--data", folder / "zh.csv", "--copies", "1")
    assert code == 0
    lines = out.splitlines()
    assert "original" in lines[2] and "copy" in lines[2]
    assert "\x1b[9;31m" in out  # gone
    assert "这部" in out and "[-" not in out


def test_schedules_are_taken_at_the_share_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "one.yaml").write_text(
        "input: {augment: {n_aug: 1, policy: [[{name: random_deletion, p: 0.9, schedule: rising}]]}}\n"
    )
    arguments = ("preview", folder / "one.yaml", "--data", folder / "rows.jsonl", "--at")
    assert "0 of 2 texts changed" in call(capsys, *arguments, "0")[1]
    assert "2 of 2 texts changed" in call(capsys, *arguments, "1")[1]


def test_reconstruction_is_shown_on_originals_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "normal.yaml").write_text("input: {reconstruct: [{name: normalize}]}\n")
    (folder / "wide.csv").write_text("text,label\nＡ  film,1\n", encoding="utf-8")
    out = call(capsys, "preview", folder / "normal.yaml", "--data", folder / "wide.csv")[1]
    assert "copy 0 (reconstruction alone): [-Ａ  -]{+A +}film" in out


def test_copies_are_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "more.jsonl"
    arguments = ("apply", folder / "policy.yaml", "--data", folder / "zh.csv", "--out", out, "--copies", "3")
    code, said, err = call(capsys, *arguments)
    assert (code, err) == (0, [])
    assert said.startswith(f"ok  {out}: 8 rows from 2, in ")
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row["copy"] for row in rows] == [0, 1, 2, 3] * 2
    assert {row["label"] for row in rows} == {"好"}
    code, _, err = call(capsys, *arguments)
    assert (code, err) == (2, [f"error: {out}: is there already: choose another name, or give --overwrite"])
    assert call(capsys, *arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["show", "nowhere.yaml"], "error: nowhere.yaml: no such file"),
        (["preview", "policy.yaml"], "error: a policy file names no data: give --data FILE"),
        (
            ["preview", "policy.yaml", "--data", "rows.csv"],
            "error: rows.csv: no such file or folder: did you mean 'rows.jsonl'?",
        ),
        (
            ["preview", "policy.yaml", "--data", "rows.jsonl", "--text", "0"],
            "error: rows.jsonl: column 0 is a position",
        ),
        (["preview", "policy.yaml", "--data", "rows.jsonl", "-n", "0"], "error: Invalid value for '-n'"),
        (["preview", "policy.yaml", "--data", "rows.jsonl", "--at", "2"], "error: Invalid value for '--at'"),
        (["apply", "policy.yaml", "--data", "rows.jsonl"], "error: Missing option '--out'"),
        (
            ["apply", "policy.yaml", "--data", "rows.jsonl", "--out", "a.txt"],
            "error: a.txt: unknown kind of file '.txt'",
        ),
        (
            ["apply", "policy.yaml", "--data", "rows.jsonl", "--out", "rows.jsonl", "--overwrite"],
            "error: rows.jsonl: is the file that is read: choose another name",
        ),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    arguments: list[str],
    line: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert len(err) == 1
    assert err[0].startswith(line)


def test_differences_are_whole_words_and_runs_of_them() -> None:
    assert changes("a good film", "a great film") == [
        Change("a ", "a "),
        Change("good", "great"),
        Change(" film", " film"),
    ]
    assert marked(changes("one two three four", "one 2 3 four"), 100) == "one [-two three-]{+2 3+} four"
    assert marked(changes("真好看。", "真难看！"), 100) == "真[-好-]{+难+}看[-。-]{+！+}"
    assert marked(changes("same", "same"), 100) == "same"
    assert marked(changes("ab " * 50, "ab " * 50), 10) == "ab ab ab a… 140 more"
    assert [side.plain for side in coloured(changes("old text", "new text"), 5)] == ["old t… 3 more", "new t… 3 more"]


def test_very_long_texts_are_compared_in_reasonable_time() -> None:
    long = "word " * (10 * MOST_PIECES)
    found = changes(long, "other " + long)
    assert "".join(change.old for change in found) == long


@settings(max_examples=200, deadline=None)
@given(old=HOSTILE, new=HOSTILE)
def test_both_texts_can_be_read_off_their_differences(old: str, new: str) -> None:
    found = changes(old, new)
    assert "".join(change.old for change in found) == old
    assert "".join(change.new for change in found) == new
    shown = printable(old)
    assert "\n" not in shown and "\x00" not in shown
    shown.encode()  # no lone surrogate is sent to a terminal
    marked(found, 50).encode()
