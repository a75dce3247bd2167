"""`bothways lexicon learn`: from two files to a map that lexicon_map reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bothways.cli import lexicon, run
from bothways.input_side.word_map import word_map

MOVIES = ["the film was dull", "a fine film by the director", "an actor in a film", "the director of the actor"]
SHOPS = ["the product was dull", "a fine product by the maker", "a salesman of a product", "the maker of the salesman"]


def corpus(file: Path, texts: list[str]) -> str:
    file.write_text("".join(json.dumps({"review": text}) + "\n" for text in texts * 10), "utf-8")
    return str(file)


def test_a_map_is_learned_written_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    movies, shops = corpus(tmp_path / "a.jsonl", MOVIES), corpus(tmp_path / "b.jsonl", SHOPS)
    out = tmp_path / "map.tsv"
    command = ["lexicon", "learn", movies, shops, "--out", str(out), "--text", "review", "--similarity", "-1"]
    assert run(command) == 0, capsys.readouterr().err
    rows = [line.split("\t") for line in out.read_text("utf-8").splitlines()]
    assert {row[0] for row in rows} <= {"film", "director", "actor"} and rows
    assert {row[1] for row in rows} <= {"product", "maker", "salesman"}
    assert word_map(str(out)).longest == 1
    assert "pairs in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--language", "fr"], "choose en or zh"),
        (["--text", "nothing"], "nothing"),
        (["--least", "1000"], "no pairs among 0 words"),
    ],
)
def test_what_cannot_be_learned_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    movies, shops = corpus(tmp_path / "a.jsonl", MOVIES), corpus(tmp_path / "b.jsonl", SHOPS)
    command = ["lexicon", "learn", movies, shops, "--out", str(tmp_path / "map.tsv"), "--text", "review", *options]
    assert run(command) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_an_asset_is_read_and_so_are_columns_by_their_position(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shops = tmp_path / "shops.csv"
    shops.write_bytes("".join(f"1,{text}\n" for text in SHOPS).encode() + "1,坏\n".encode("gbk"))
    out = str(tmp_path / "map.tsv")
    assert run(["lexicon", "learn", "asset:rotten_tomatoes", str(shops), "--out", out]) == 2  # by its name, of both
    assert "no column 'text'; the first line has '1'" in capsys.readouterr().err
    assert lexicon._texts(str(shops), "1") == SHOPS  # what is not UTF-8 is no text
    shops.write_bytes("text\n坏\n".encode("gbk"))
    assert run(["lexicon", "learn", str(shops), str(shops), "--out", out]) == 2
    assert "has no usable text in the column 'text'" in capsys.readouterr().err
