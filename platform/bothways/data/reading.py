"""Records of csv, tsv, jsonl and parquet files, each with its line number, good or broken: nothing is skipped."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bothways.errors import UserError, did_you_mean, one_line


class Columns(NamedTuple):
    """Names, or positions counted from 0 in a csv or tsv file without a header. `label` None: a file without labels."""

    text: str | int
    pair: str | int | None
    label: str | int | None
    more: tuple[str | int, ...] = ()

    @property
    def named(self) -> list[str | int]:
        """The columns there are, in the order text, pair, label, and more of a file."""
        return [column for column in (self.text, self.pair, self.label, *self.more) if column is not None]


def column(written: str) -> str | int | None:
    """A column as a command line names it: digits are a position, and nothing is none."""
    return (int(written) if written.isdecimal() else written) if written else None


class Broken(NamedTuple):
    """A record whose fields cannot be told apart."""

    reason: str
    excerpt: str


_NO_UTF8 = re.compile("[\0\ud800-\udfff]")
"""What is left of other encodings: every second byte of UTF-16, and what stands for bytes (PEP 383)."""

Record = tuple[int, "list[Any] | Broken"]
"""Line (or row) number counted from 1, and the values of `Columns.named`."""


def records(path: Path, columns: Columns) -> Iterator[Record]:
    """The records of a file by its suffix. Bytes that are not UTF-8 arrive as lone surrogates (PEP 383).

    Raises `UserError`: unknown suffix, missing column, or a file that cannot be read on.
    """
    if path.suffix not in _READERS:
        raise UserError(f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(sorted(_READERS))}")
    if not path.is_file():
        raise UserError(f"{path}: not a file")
    try:
        yield from _READERS[path.suffix](path, columns)
    except OSError as error:  # pyarrow's errors of reading are OSErrors too
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from error


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends; a byte order mark is dropped. Raises `UserError` on UTF-16."""
    with path.open("rb") as file:
        for i, line in enumerate(file):
            if i == 0:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise UserError(f"{path}:1: UTF-16 text; save the file as UTF-8")
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield line.decode("utf-8", "surrogateescape")


def _csv_rows(path: Path) -> Iterator[Record]:
    csv.field_size_limit(1 << 30)  # texts over the limit are refused later, with the right line number
    reader = csv.reader(_lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise UserError(
                    f"{path}:{line}: a quote is opened here and never closed; double it or close it"
                ) from None
            yield line, Broken(f"broken csv ({error})", "")
            continue
        if row:  # a blank line is no row
            yield line, row


def _tsv_rows(path: Path) -> Iterator[Record]:
    for line, text in enumerate(_lines(path), 1):
        if text.strip("\r\n"):
            yield line, text.rstrip("\r\n").split("\t")


def _delimited(rows: Callable[[Path], Iterator[Record]], path: Path, columns: Columns) -> Iterator[Record]:
    found = rows(path)
    line, first = next(found, (1, Broken("empty", "")))
    if isinstance(first, Broken):
        raise UserError(f"{path}:{line}: no first line to read the columns from: the file is {first.reason}")
    positions = _positions(path, line, first, columns)
    body: Iterable[Record] = found if isinstance(columns.text, str) else chain([(line, first)], found)
    for line, row in body:
        if not isinstance(row, Broken):
            if len(row) == len(first):
                row = [row[position] for position in positions]
            else:
                row = Broken(f"{len(row)} columns instead of {len(first)}", " | ".join(row))
        yield line, row


def _positions(path: Path, line: int, first: list[str], columns: Columns) -> list[int]:
    """Where the named columns are. Raises `UserError` that says what the first line holds instead."""
    named = columns.named
    if any(isinstance(column, int) for column in named):
        if not all(isinstance(column, int) and column < len(first) for column in named):
            raise UserError(
                f"{path}:{line}: columns {named} do not fit: give all of them as positions from 0 to {len(first) - 1}, "
                "or all of them as names of the header line"
            )
        return [int(column) for column in named]
    for column in named:
        if first.count(str(column)) > 1:
            raise UserError(f"{path}:{line}: the header has two columns {column!r}; rename one")
        if column not in first:
            if _NO_UTF8.search("".join(first)):
                raise UserError(f"{path}:{line}: the header is not UTF-8 text: save the file as UTF-8")
            header = ", ".join(repr(name[:40]) for name in first[:8])
            raise UserError(
                f"{path}:{line}: no column {column!r}; the first line has {header}. Name the right one, or, if that is "
                "a row and not a header, give positions counted from 0, as in `label: 0` and `text: 1`"
            )
    return [first.index(str(column)) for column in named]


def _csv(path: Path, columns: Columns) -> Iterator[Record]:
    return _delimited(_csv_rows, path, columns)


def _tsv(path: Path, columns: Columns) -> Iterator[Record]:
    return _delimited(_tsv_rows, path, columns)


def _jsonl(path: Path, columns: Columns) -> Iterator[Record]:
    named = names(path, columns)
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, Broken(f"broken JSON ({one_line(error)})", line)
            continue
        if not isinstance(value, dict):
            yield number, Broken(f"a JSON {type(value).__name__} where an object belongs", line)
        elif missing := [name for name in named if name not in value]:
            yield number, Broken(f"no field {missing[0]!r}", line)
        else:
            yield number, [value[name] for name in named]


def _parquet(path: Path, columns: Columns) -> Iterator[Record]:
    named = names(path, columns)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: not a parquet file: {one_line(error)}") from error
    with file:
        known = file.schema_arrow.names
        for name in named:
            if name not in known:
                raise UserError(f"{path}: no column {name!r}: {did_you_mean(name, known)}")
            if known.count(name) > 1:
                raise UserError(f"{path}: has two columns {name!r}; rename one")
        number = 0
        for batch in file.iter_batches(columns=named):
            for row in zip(*(_values(batch.column(name)) for name in named), strict=True):
                number += 1
                yield number, list(row)


def _values(column: Any) -> list[Any]:
    """Python values of an arrow column; text that is not UTF-8 as lone surrogates, as from `_lines`."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def names(path: Path | str, columns: Columns) -> list[str]:
    """The columns as names. Raises `UserError` for a position."""
    for column in columns.named:
        if isinstance(column, int):
            raise UserError(f"{path}: column {column} is a position, but these columns have names: give the name")
    return [str(column) for column in columns.named]


_READERS: dict[str, Callable[[Path, Columns], Iterator[Record]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
