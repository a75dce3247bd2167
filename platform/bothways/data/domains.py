"""Rows beside the splits: text of the domain that a model is to serve; labelled rows of other domains, mixed into
training; rows whose labels are known to be right; rows of other tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from bothways import config
from bothways.config.domains import source_name
from bothways.data.checking import Rows, check, describe_rejected, refuse_too_many
from bothways.data.duplicates import find
from bothways.data.reading import Broken, Columns, Record
from bothways.data.sources import parts
from bothways.data.splitting import row_ids
from bothways.errors import UserError
from bothways.task_contract import TaskLike

MAX_LABELS = 1000
"""More, and the label column is some other column."""
_NO_LABEL = "none"
_SPLITS = "the splits"


def target_text(data: config.Data, splits: Mapping[str, pa.Table]) -> tuple[pa.Table, list[str]]:
    """The text of `data.unlabelled_source`, each once, in the order of the texts, and notes. No text of any split.

    Labels, if it has any, are not read: those of a file need not even be there. Of an asset or a hub dataset with
    splits of its own, the training rows and those without label are taken.
    """
    source = data.unlabelled_source
    assert source is not None
    found = parts(source, Columns(data.text, data.pair, None))
    texts = 1 if data.pair is None else 2

    def records() -> Iterator[Record]:
        for part in ("train", "unlabelled"):
            for line, values in found.get(part, ()):
                yield line, values if isinstance(values, Broken) else [*values[:texts], _NO_LABEL]

    rows = check(source, records())
    refuse_too_many(rows, data.max_bad_rows, None)
    (kept,), dropped = _unseen([rows], splits)
    if not kept:
        raise UserError(f"data.unlabelled_source {source} has no text that is not in the splits already")
    notes = [note for note in (describe_rejected(rows, None), dropped) if note]
    return _table(kept, None, paired=data.pair is not None), notes


def mixed_rows(
    data: config.Data, splits: Mapping[str, pa.Table], labels: Sequence[str]
) -> tuple[tuple[pa.Table, ...], list[str]]:
    """The rows of each source of `data.mix`, each once, in the order of the texts, and notes. No text of any split.

    Raises `UserError` for labels that are none of `labels`, and where rows have other labels than one class each.
    """
    if not pa.types.is_integer(splits["train"]["label"].type):
        raise UserError(
            "data.mix mixes in rows with one class as their label, and those of this task have other labels"
        )
    read, notes = [], []
    for other in data.mix:
        rows = check(other.source, parts(other.source, Columns(data.text, data.pair, data.label))["train"])
        refuse_too_many(rows, data.max_bad_rows, None)
        notes += [note for note in [describe_rejected(rows, None)] if note]
        rows.labels[:] = [other.labels.get(label, label) for label in rows.labels]
        if unknown := sorted(set(rows.labels) - set(labels)):
            raise UserError(
                f"data.mix: {other.source} has rows labelled {', '.join(unknown[:5])}, {source_name(data.source)} has "
                f"{', '.join(labels[:5])}: say under `labels` which is which, as in {{{unknown[0]}: {labels[0]}}}"
            )
        read.append(rows)
    kept, dropped = _unseen(read, splits)
    for other, rest in zip(data.mix, kept, strict=True):
        if not rest:
            raise UserError(f"data.mix: {other.source} has no text that is not in the splits already")
    tables = tuple(_table(rest, labels, paired=data.pair is not None) for rest in kept)
    return tables, [*notes, *([dropped] if dropped else [])]


def clean_rows(
    data: config.Data, splits: Mapping[str, pa.Table], labels: Sequence[str], task: TaskLike
) -> tuple[pa.Table, list[str]]:
    """The rows of `data.clean_source`, each once, in the order of the texts, and notes. No text of any split."""
    source = data.clean_source
    assert source is not None
    rows = check(source, parts(source, Columns(data.text, data.pair, data.label))["train"], task, labels)
    refuse_too_many(rows, data.max_bad_rows, None)
    (kept,), dropped = _unseen([rows], splits)
    if not kept:
        raise UserError(f"data.clean_source {source} has no text that is not in the splits already")
    table = _table(kept, None, paired=data.pair is not None)
    column = task.column([label for _, _, label in kept], tuple(labels))
    table = table.set_column(table.column_names.index("label"), "label", column)
    return table, [note for note in (describe_rejected(rows, None), dropped) if note]


def auxiliary_rows(
    data: config.Data, splits: Mapping[str, pa.Table]
) -> tuple[tuple[pa.Table, ...], tuple[int, ...], list[str]]:
    """The rows of each of `data.tasks`, each once, in the order of the texts; how many classes each has; notes. No text
    of any split. Class numbers go on from one task to the next, so that a label says of which it is.

    Raises `UserError` for a task of fewer than two classes, and where our own rows have not one class each.
    """
    if not pa.types.is_integer(splits["train"]["label"].type):
        raise UserError("data.tasks are classifications, and go with one: the labels of this task are others")
    tables: list[pa.Table] = []
    classes: list[int] = []
    notes: list[str | None] = []
    for other in data.tasks:
        rows = check(other.source, parts(other.source, Columns(other.text, other.pair, other.label))["train"])
        refuse_too_many(rows, data.max_bad_rows, None)
        (kept,), dropped = _unseen([rows], splits)  # two tasks may ask different things of one text
        labels = sorted({label for _, _, label in kept})
        if not 2 <= len(labels) <= MAX_LABELS:
            raise UserError(
                f"data.tasks: {other.source} has {len(labels):,} different labels in {len(kept):,} rows that are not "
                f"in the splits; a task has 2 to {MAX_LABELS:,}: is {other.label!r} the right column?"
            )
        table = _table(kept, labels, paired=data.pair is not None)
        at = table.column_names.index("label")
        tables.append(table.set_column(at, "label", pc.add(table["label"], sum(classes))))
        classes.append(len(labels))
        notes += [describe_rejected(rows, None), dropped]
    return tuple(tables), tuple(classes), [note for note in notes if note]


_Row = tuple[str, str, str]


def _unseen(read: Sequence[Rows], splits: Mapping[str, pa.Table]) -> tuple[list[list[_Row]], str]:
    """The (text, pair, label) of each source that repeat no other row and no text of a split, sorted, and a note."""
    used = Rows(source=_SPLITS)
    for table in splits.values():
        used.texts.extend(table["text"].to_pylist())
        used.pairs.extend(pair or "" for pair in table["pair"].to_pylist())
    used.labels.extend([""] * len(used.texts))
    used.lines.extend(range(1, len(used.texts) + 1))
    duplicates = find([*read, used])
    tested = {text.strip() for text in used.texts}
    kept = [
        sorted(
            row
            for number, row in enumerate(zip(rows.texts, rows.pairs, rows.labels, strict=True))
            if (part, number) not in duplicates.drop and row[0].strip() not in tested
        )
        for part, rows in enumerate(read)
    ]
    gone = sum(len(rows.texts) for rows in read) - sum(map(len, kept))
    names = ", ".join(rows.source for rows in read)
    return kept, f"{names}: left out {gone:,} rows that repeat another or a text of {_SPLITS}" if gone else ""


def _table(rows: list[_Row], labels: Sequence[str] | None, *, paired: bool) -> pa.Table:
    """The columns of a `Dataset`; no label where `labels` is None."""
    number = {label: at for at, label in enumerate(labels or ())}
    named = [(text, pair, label if labels else "") for text, pair, label in rows]
    columns = {
        "id": pa.array(row_ids(named), pa.int64()),
        "text": pa.array([text for text, _, _ in rows], pa.string()),
        "pair": pa.array([pair if paired else None for _, pair, _ in rows], pa.string()),
        "label": pa.array([number.get(label) for _, _, label in rows], pa.int64()),
    }
    return pa.table(columns)
