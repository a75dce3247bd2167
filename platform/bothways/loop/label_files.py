"""Files that a person fills in: rows without labels as a table for a spreadsheet, and back.

UTF-8 with a byte order mark, without which Excel takes Chinese for Latin-1; commas, quotes after RFC 4180. What is
filled in is read like any other data, by `data.source`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bothways import data
from bothways.assets.files import write_whole
from bothways.config import Data
from bothways.data.checking import check, unfit, usable_texts
from bothways.data.reading import Broken, Columns, records
from bothways.data.sources import parts
from bothways.errors import UserError, did_you_mean, one_line
from bothways.loop.acquisition import Row

if TYPE_CHECKING:
    from bothways.config.domains import Column
    from bothways.loop.acquisition import Suggestion

Labelled = tuple[str, str, str]
"""Text, pair (empty for single texts), label."""


def unlabelled(
    source: str, text: Column = "text", pair: Column | None = None, label: Column | None = None
) -> list[Row]:
    """The usable rows of a source, of an asset with splits the training rows and those without labels; where `label` is
    a column, those whose cell is empty. Raises `UserError`."""
    columns = Columns(text, pair, label)
    texts = 1 if pair is None else 2
    found = parts(source, columns)
    rows = []
    for part in ("train", "unlabelled"):
        for line, values in found.get(part, ()):
            if isinstance(values, Broken) or (label is not None and _filled(values[-1])):
                continue
            if len(usable_texts([(line, [value]) for value in values[:texts]])) == texts:
                rows.append(Row(line=line, text=values[0], pair=values[1] if texts == 2 else ""))
    if not rows:
        raise UserError(f"{source}: no usable text without a label")
    return rows


def _filled(cell: object) -> bool:
    return cell is not None and str(cell).strip() != ""


def labelled(source: str, columns: Columns, names: Mapping[str, str] | None = None) -> Iterator[Labelled]:
    """The rows of a source that have labels, under the `names` that these are given."""
    for part in parts(source, columns).values():
        rows = check(source, part, names=names)
        yield from zip(rows.texts, rows.pairs, rows.labels, strict=True)


def splits(about: Data) -> Iterator[tuple[str, str]]:
    """The texts and pairs of every split of a dataset."""
    yield from texts_of(data.load(about), ("train", "selection", "test"))


def texts_of(dataset: data.Dataset, roles: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The texts and pairs of some splits."""
    for role in roles:
        table = dataset.rows(role)
        for text, pair in zip(table["text"].to_pylist(), table["pair"].to_pylist(), strict=True):
            yield text, pair or ""


def write(file: Path, suggested: Sequence[Suggestion], *, paired: bool) -> None:
    """The rows to be labelled, with an empty column `label`."""
    head = ["text", *(["pair"] if paired else []), "label", "uncertainty", "row"]
    body = (
        [one.row.text, *([one.row.pair] if paired else []), "", f"{one.uncertainty:.4f}", str(one.row.line)]
        for one in suggested
    )
    _write(file, [head, *body], "utf-8-sig")


def write_labelled(file: Path, rows: Iterable[Labelled], *, paired: bool) -> None:
    """Rows with their labels, as `data.source` reads them."""
    body = ([text, *([pair] if paired else []), label] for text, pair, label in rows)
    _write(file, [["text", *(["pair"] if paired else []), "label"], *body], "utf-8")


def _write(file: Path, rows: Iterable[Sequence[str]], encoding: str) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    try:
        write_whole(file, text.getvalue(), encoding)
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {one_line(error)}") from error


def answers(file: Path, labels: Collection[str], *, paired: bool) -> list[Labelled]:
    """The rows that somebody has filled in; those left empty are passed over.

    Raises `UserError` for a label that is none of `labels`, and for a row that cannot be read.
    """
    rows: list[Labelled] = []
    for line, values in records(file, Columns("text", "pair" if paired else None, "label")):
        reasons = [values.reason] if isinstance(values, Broken) else [*filter(None, map(unfit, values))]
        if isinstance(values, Broken) or reasons:
            raise UserError(f"{file}:{line}: {reasons[0]}: save it as a csv with commas, in UTF-8")
        label = str(values[-1]).strip()
        if not label:
            continue
        if label not in labels:
            raise UserError(f"{file}:{line}: unknown label {label[:40]!r}: {did_you_mean(label, labels)}")
        rows.append((values[0], values[1] if paired else "", label))
    return rows
