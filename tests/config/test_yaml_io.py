"""The strict reader: what it reads, what it refuses, and that nothing else comes out of it than data or one line."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.config import yaml_io
from bothways.errors import UserError


def value(text: str) -> Any:
    return yaml_io.parse(f"key: {text}", "file.yaml").data["key"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-5", 1e-5),
        (".5", 0.5),
        ("-3.", -3.0),
        ("12", 12),
        ("017", 17),
        ("0o17", 15),
        ("0x1f", 31),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("12:30:00", "12:30:00"),
        ("'1e-5'", "1e-5"),
        ("models:/a@b", "models:/a@b"),
        ("不好看", "不好看"),
    ],
)
def test_scalars_follow_yaml_1_2(written: str, meant: Any) -> None:
    assert value(written) == meant
    assert type(value(written)) is type(meant)


def test_infinities_and_not_a_number_are_read_as_such() -> None:
    assert value("-.inf") == -math.inf
    assert math.isnan(value(".nan"))


BOMB = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (BOMB, "f.yaml:1", "anchors and aliases"),
        ("a: 1\nb: *a", "f.yaml:2", "anchors and aliases"),
        ("a: 1\nb: !!python/object/apply:os.system [id]", "f.yaml:2", "tags are not accepted"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3", "already on line 1"),
        ("a:\n  b: 1\n  b: 2", "f.yaml:3", "already on line 2"),
        ("a: 1\n---\nb: 2", "f.yaml:2", "a second document"),
        ("- a\nb: 1", "f.yaml:2", "not valid YAML"),
        ("%YAML 1.1\n---\na: no", "f.yaml:1", "directives"),
        ("a:\n\tb: 1", "f.yaml:2", "tab"),
        ("a: 1\nb: x\x00y", "f.yaml:2", "U+0000"),
        ("a: \x1b[31mred", "f.yaml:1", "U+001B"),
        ("a: \ud800", "f.yaml:1", "U+D800"),
        ("a: [1, 2", "f.yaml:1", "not closed"),
        ("a: 'x", "f.yaml:1", "not closed"),
        ("a: b: c", "f.yaml:1", "':'"),
        ("a: @b", "f.yaml:1", "quote it"),
        ("? [a]\n: 1", "f.yaml:1", "a key is a plain word"),
        ("a: 99999999999999999999", "f.yaml:1", "64 bits"),
        ("a: " + "[" * 40 + "]" * 40, "f.yaml:1", "nested deeper"),
        ("a: " + "[" * 100_000, "f.yaml:1", "nested deeper"),
        ("a: " + "{a: " * 100_000, "f.yaml:1", "nested deeper"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text: str, place: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        yaml_io.parse(text, "f.yaml")
    line = str(refusal.value)
    assert line.startswith(f"{place}: ")
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xef\xbb\xbfa: 1", ":1: starts with a byte order mark"),
        (b"a: 1\nb: \xff\xfe", ":2: is not UTF-8 (byte 0xff)"),
        ("a: 1".encode("utf-16"), ":1: is not UTF-8"),
    ],
)
def test_only_utf_8_without_a_mark_is_read(tmp_path: Path, raw: bytes, message: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(raw)
    with pytest.raises(UserError) as refusal:
        yaml_io.read(file)
    assert message in str(refusal.value)


def test_a_huge_file_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    with file.open("wb") as stream:  # sparse: 50 MB that cost no disk
        stream.truncate(50_000_000)
    began = time.monotonic()
    with pytest.raises(UserError, match="larger than 1 MiB"):
        yaml_io.read(file)
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\x00b", "x" * 5000])
def test_a_path_that_is_no_file_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as refusal:
        yaml_io.read(f"{tmp_path}/{name}")
    assert "\n" not in str(refusal.value)


def test_every_node_knows_its_line() -> None:
    document = yaml_io.parse("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n", "f.yaml")
    assert document.where(("b", 0)) == "f.yaml:3"
    assert document.where(("b", 1, "d")) == "f.yaml:5"
    assert document.where(("b", 1, "missing", "below")) == "f.yaml:4"


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20)
trees = st.recursive(plain, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=8), t, max_size=3))


def _readable(tree: Any) -> bool:
    """Control characters and lone surrogates are what the reader refuses; the writer need not carry them."""
    if isinstance(tree, dict):
        return all(_readable(k) and _readable(v) for k, v in tree.items())
    if isinstance(tree, list):
        return all(map(_readable, tree))
    return not isinstance(tree, str) or not any(ord(c) < 32 and c not in "\n\t\r" for c in tree)


@given(trees.filter(_readable))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(tree: Any) -> None:
    assert yaml_io.parse(yaml_io.dump(tree), "dumped").data == tree


@given(st.binary(max_size=60) | st.text(alphabet="ab:-[]{}&*!|>%@`'\"#,? \n\t0.e\x00", max_size=40).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_data_or_one_line(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_bytes(raw)
    try:
        yaml_io.read(file)
    except UserError as error:
        assert "\n" not in str(error)
