"""Rows as a table for people, as Markdown, JSON or TSV for files and programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

WIDTH = 160  # characters a line when the output is not a terminal
UNBROKEN = 40  # a column this narrow is not wrapped


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    md = "md"
    json = "json"
    tsv = "tsv"


def show(rows: Sequence[Mapping[str, Any]], form: Format, columns: Sequence[str] | None = None) -> None:
    """Print `rows`, whose keys are the columns; `columns` picks some of them for the table and Markdown."""
    columns = list(columns or (rows[0] if rows else ()))
    if form is Format.json:
        sys.stdout.write(json.dumps(list(rows), ensure_ascii=False, indent=2) + "\n")
    elif form is Format.tsv:
        _lines("\t", rows, list(rows[0]) if rows else columns, str.maketrans("\t\n\r", "   "))
    elif form is Format.md:
        table = str.maketrans({"|": r"\|", "\n": "<br>"})
        cells = [[str(row[column]).translate(table) for column in columns] for row in rows]
        for line in [list(columns), ["---"] * len(columns), *cells]:
            sys.stdout.write(f"| {' | '.join(line)} |\n")
    else:
        _table(rows, columns)


def _lines(separator: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], table: dict[int, Any]) -> None:
    for line in [list(columns), *([str(row[column]).translate(table) for column in columns] for row in rows)]:
        sys.stdout.write(separator.join(line) + "\n")


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        longest = max((len(line) for row in rows for line in str(row[column]).splitlines()), default=0)
        table.add_column(column, overflow="fold", no_wrap=longest <= UNBROKEN)
    for row in rows:
        table.add_row(*(Text(str(row[column])) for column in columns))  # Text: cells are data, never markup
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
