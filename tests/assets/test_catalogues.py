"""Texts with targets out of Debian's package index and of the messages of a user interface."""

from __future__ import annotations

import bz2
import json
import lzma
import struct
from pathlib import Path

from bothways.assets import catalogues, readers

PACKAGES = "".join(
    f"Package: {name}\nDescription: ignored\nDescription-md5: {digest}\nSection: {section}\n{source}Tag: a, b\n\n"
    for name, digest, section, source in [
        ("chess", "aa", "games", ""),
        ("libchess1", "bb", "libs", "Source: chess (1.2)\n"),
        ("libchess-dev", "cc", "libdevel", "Source: chess\n"),
        ("tiny", "dd", "misc", ""),
        ("libchess2", "ff", "libs", "Source: chess\n"),
    ]
)
ENGLISH = """Package: chess
Description-md5: aa
Description-en: a game of chess
 You play against  the
 machine, or it plays itself.
 .
 Some of its parts:
  * a board
  * a clock that
    runs

Package: libchess1
Description-md5: bb
Description-en: rules of chess
 A library.

Package: libchess2
Description-md5: ff
Description-en: rules of chess, once more
 A library.

Package: tiny
Description-md5: dd
Description-en: nothing more to say

Package: gone
Description-md5: ee
Description-en: in no list of packages
 Gone.
"""
CHINESE = """Package: chess
Description-md5: aa
Description-zh_CN: 国际象棋
 与机器对弈，
 或观看 GNU 象棋
 自行对弈。

Package: libchess1
Description-md5: bb
Description-zh_CN: rules of chess
 一个程序库。

Package: chess
Description-md5: 00
Description-zh_CN: 旧的说明
 已经过时。
"""


def index(folder: Path) -> None:
    (folder / "Packages.xz").write_bytes(lzma.compress(PACKAGES.encode()))
    (folder / "Translation-en.xz").write_bytes(lzma.compress(ENGLISH.encode()))
    (folder / "Translation-zh_CN.bz2").write_bytes(bz2.compress(CHINESE.encode()))


def rows(folder: Path) -> list[dict[str, str]]:
    return [
        json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()
    ]


def test_a_description_is_summarised_by_its_first_line_and_labelled_with_its_section(tmp_path: Path) -> None:
    index(tmp_path)
    catalogues.debian_summaries(tmp_path)
    board = "You play against the machine, or it plays itself.\nSome of its parts:\n* a board\n* a clock that\nruns"
    assert rows(tmp_path) == [
        {"text": board, "label": "games", "target": "a game of chess", "source": "chess"},
        {"text": "A library.", "label": "libs", "target": "rules of chess", "source": "chess"},
    ]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl"] * 3
    read = readers.json_lines(tmp_path)
    assert set(read) == {"train", "selection", "test"}
    assert [row for split in sorted(read) for row in read[split]] == [(board, "games"), ("A library.", "libs")]


def test_a_source_package_is_in_one_split_and_splits_have_their_shares(tmp_path: Path) -> None:
    packages = "".join(f"Package: p{i}\nDescription-md5: {i}\nSection: misc\nSource: s{i // 2}\n\n" for i in range(800))
    english = "".join(f"Package: p{i}\nDescription-md5: {i}\nDescription-en: s\n text {i}\n\n" for i in range(800))
    (tmp_path / "Packages.xz").write_bytes(lzma.compress(packages.encode()))
    (tmp_path / "Translation-en.xz").write_bytes(lzma.compress(english.encode()))
    catalogues.debian_summaries(tmp_path)
    splits = {
        file.stem: [json.loads(line)["source"] for line in file.read_text("utf-8").splitlines()]
        for file in tmp_path.glob("*.jsonl")
    }
    assert sum(len(set(sources)) for sources in splits.values()) == 400
    assert 580 < len(splits["train"]) < 700 and 40 < len(splits["test"]) < 130 and 40 < len(splits["selection"]) < 130


def test_translations_are_those_of_the_text_as_it_is(tmp_path: Path) -> None:
    index(tmp_path)
    catalogues.debian_zh(tmp_path)
    found = {(row["label"], row["target"]): row["text"] for row in rows(tmp_path)}
    assert found[("summary", "国际象棋")] == "a game of chess"
    assert ("description", "与机器对弈，或观看 GNU 象棋自行对弈。") in found
    assert found[("description", "一个程序库。")] == "A library."  # its summary was left in English
    assert len(found) == 3
    kinds = {kind: readers.json_lines(tmp_path, text=kind, label="target") for kind in ("summary", "description")}
    texts = {kind: [text for rows in read.values() for text, _ in rows] for kind, read in kinds.items()}
    assert texts["summary"] == ["a game of chess"] and len(texts["description"]) == 2


def compiled(messages: dict[str, str]) -> bytes:
    """gettext's binary format: a header, tables of lengths and places, then the strings, each with a final zero."""
    pairs = [(key.encode(), value.encode()) for key, value in sorted(messages.items())]
    start = 28 + 16 * len(pairs)
    tables, strings = [b"", b""], b""
    for column in (0, 1):
        for pair in pairs:
            tables[column] += struct.pack("<II", len(pair[column]), start + len(strings))
            strings += pair[column] + b"\0"
    header = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, start)
    return header + tables[0] + tables[1] + strings


def test_messages_come_without_their_contexts_and_empty_ones(tmp_path: Path) -> None:
    head = {"": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=1; plural=0;\n"}
    core = {"month\x04May": "五月", "Delete %(name)s?": "删除 %(name)s？", "%d day\0%d days": "%d 天", "Later": ""}
    (tmp_path / "core.mo").write_bytes(compiled(head | core))
    (tmp_path / "admin-js.mo").write_bytes(compiled(head | {"May": "五月", "Filter": "过滤器"}))
    catalogues.django_messages(tmp_path)
    found = {(row["text"], row["target"], row["label"]) for row in rows(tmp_path)}
    assert found == {
        ("May", "五月", "admin"),
        ("Filter", "过滤器", "admin"),
        ("Delete %(name)s?", "删除 %(name)s？", "core"),
        ("%d day", "%d 天", "core"),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]
