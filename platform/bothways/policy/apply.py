"""A policy applied to a file of texts: read, changed and written in blocks, in the memory of one of them.

A row's copies depend on the policy, the seed and the row's own content: a part of a file gives what it gives within the
whole, and equal rows give equal copies. They are those that a training in its first epoch reads, schedules aside.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bothways import policy
from bothways.config import Experiment
from bothways.data.checking import Rejected, Rows, check
from bothways.data.reading import Broken, Columns, Record
from bothways.data.sources import parts
from bothways.data.splitting import row_id
from bothways.errors import UserError, one_line

BLOCK = 4096
"""Rows worked on at once."""
COUNTED = 100_000
"""Rows whose words are counted, for operations that take words from the data: the first ones."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where texts come from: a path, `asset:NAME` or `hf:org/name@revision`, and its columns."""

    name: str
    columns: Columns

    def blocks(self, size: int) -> Iterator[Block]:
        """Its rows in order, the unusable ones set apart. Raises `UserError` when it cannot be read."""
        if self.columns.label is None and self.name.startswith(("asset:", "hf:")):
            raise UserError(f"{self.name} has labels of its own: leave `--label none` out")
        records = parts(self.name, self.columns)["train"]
        while found := list(islice(records, size)):
            yield _block(self, found)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows: columns id, text, pair (null for single texts); the labels as they were read, or None without any."""

    table: pa.Table
    labels: list[Any] | None
    rejected: list[Rejected]


def nothing(source: Source, block: Block | None) -> UserError:
    """What to say of a source without a usable row. `block`: its first one, if there is any."""
    if block is None:
        return UserError(f"{source.name}: no rows at all")
    first = block.rejected[0]
    return UserError(f"{first.source}:{first.line}: {first.reason}; there is no usable row")


def _block(source: Source, records: list[Record]) -> Block:
    labelled = source.columns.label is not None
    usual: list[Record] = records if labelled else [(n, v if isinstance(v, Broken) else [*v, "-"]) for n, v in records]
    rows: Rows = check(source.name, usual)
    paired = source.columns.pair is not None
    contents = ("\0".join(row) for row in zip(rows.texts, rows.pairs, rows.labels, strict=True))
    table = pa.table(
        {
            "id": pa.array(map(row_id, contents), pa.int64()),
            "text": pa.array(rows.texts, pa.string()),
            "pair": pa.array(rows.pairs if paired else [None] * len(rows.texts), pa.string()),
        }
    )
    written = {line: values[-1] for line, values in records}
    return Block(
        table=table,
        labels=[written[line] for line in rows.lines] if labelled else None,
        rejected=rows.rejected,
    )


def statistics(source: Source, experiment: Experiment) -> policy.Statistics | None:
    """The words of a source's first rows, for operations that take words from the data; None without operations."""
    if not experiment.input.augment.policy:
        return None
    first = next(source.blocks(COUNTED), None)
    if first is None:
        return None
    side, table = experiment.input, first.table
    label_words, examples = side.protect.label_words > 0, policy.takes_examples(side)
    if first.labels is not None and (label_words or examples):
        classes = np.unique([str(label) for label in first.labels], return_inverse=True)[1]
        table = table.append_column("label", pa.array(classes.astype(np.int64)))
    language = experiment.data.language
    return policy.statistics(table, language, side.segmentation, label_words=label_words, examples=examples)


def views(rows: pa.Table, experiment: Experiment, progress: float | None = None) -> pa.Table:
    """A view of each row for each copy, row after row: the rows' columns with epoch and copy.

    `progress`: the share of a training at which schedules are taken; None: they are constant.
    """
    augment = experiment.input.augment
    copies = np.arange(0 if augment.keep_original else 1, augment.n_aug + 1, dtype=np.int32)
    table = rows.take(pa.array(np.repeat(np.arange(rows.num_rows), copies.size)))
    table = table.append_column("epoch", pa.array(np.zeros(table.num_rows, np.int32)))
    table = table.append_column("copy", pa.array(np.tile(copies, rows.num_rows)))
    if progress is None:
        return table
    return table.append_column("progress", pa.array(np.full(table.num_rows, progress)))


def read(views: pa.Table, experiment: Experiment, statistics: policy.Statistics | None) -> pa.Table:
    """The views as the policy changes them."""
    return policy.read(
        views,
        side=experiment.input,
        language=experiment.data.language,
        seed=experiment.seed,
        statistics=statistics,
        model=experiment.model.source,
    )


@dataclass(kw_only=True)
class Done:
    """How far it is: rows read and written, unusable ones and where those are listed."""

    read: int = 0
    written: int = 0
    rejected: int = 0
    rejected_file: Path


def apply(source: Source, experiment: Experiment, out: Path) -> Iterator[Done]:
    """Write a source with its copies to `out`, a jsonl or parquet file: columns id, copy, text, pair if there is one,
    and the label as it was. Yields after each block; the file appears when the last one is written.

    Unusable rows are listed beside it. Raises `UserError`.
    """
    policy.check(experiment.input, experiment.data.language)
    augment = experiment.input.augment
    if not augment.n_aug and not augment.keep_original:
        raise UserError("n_aug is 0 and keep_original is false: there is nothing to write")
    if out.suffix not in _WRITERS:
        raise UserError(f"{out}: unknown kind of file {out.suffix!r}; known: {', '.join(_WRITERS)}")
    if augment.balance:
        raise UserError(
            "augment.balance asks how large each class is, and a file is read in parts: give --copies instead"
        )
    counted = statistics(source, experiment)
    rejected_file = out.with_name(f"{out.name}.rejected.jsonl")
    done = Done(rejected_file=rejected_file)
    first: Block | None = None
    try:
        with ExitStack() as stack:
            rejects = stack.enter_context(_Jsonl(rejected_file))
            writer = stack.enter_context(_WRITERS[out.suffix](out))
            for block in source.blocks(BLOCK):
                first = first or block
                table = views(block.table, experiment)
                repeated = None if block.labels is None else _repeated(block.labels, table.num_rows)
                columns = ["id", "copy", "text", *(["pair"] if source.columns.pair is not None else [])]
                if table.num_rows:
                    writer.write(read(table, experiment, counted).select(columns), repeated)
                rejects.lines([asdict(item) for item in block.rejected])
                done.read += block.table.num_rows
                done.written += table.num_rows
                done.rejected += len(block.rejected)
                yield done
            if not done.read:
                raise nothing(source, first)
        if not done.rejected:
            rejected_file.unlink()
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or one_line(error)}") from None


def _repeated(labels: list[Any], views: int) -> list[Any]:
    copies = views // max(1, len(labels))
    return [label for label in labels for _ in range(copies)]


class _Partial(ABC):
    """A file that appears under its name when it is whole, and not at all when something goes wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    @abstractmethod
    def write(self, table: pa.Table, labels: list[Any] | None) -> None:
        """Append rows, with their labels where there are any. Raises `UserError` for what the format cannot hold."""

    @abstractmethod
    def close(self) -> None:
        """Finish the partial file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
            if kind is None:
                self.partial.replace(self.path)
        finally:
            self.partial.unlink(missing_ok=True)


class _Jsonl(_Partial):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = self.partial.open("w", encoding="utf-8", newline="\n")

    def write(self, table: pa.Table, labels: list[Any] | None) -> None:
        rows = table.to_pylist()
        if labels is not None:
            rows = [row | {"label": label} for row, label in zip(rows, labels, strict=True)]
        self.lines(rows, ascii=False)

    def lines(self, rows: list[dict[str, Any]], ascii: bool = True) -> None:
        for row in rows:
            self._file.write(json.dumps(row, ensure_ascii=ascii, default=str) + "\n")

    def close(self) -> None:
        self._file.close()


class _Parquet(_Partial):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.partial.touch()
        self._writer: pq.ParquetWriter | None = None
        self._type: pa.DataType | None = None

    def write(self, table: pa.Table, labels: list[Any] | None) -> None:
        if labels is not None:
            try:
                column = pa.array(labels, self._type)
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                raise UserError(f"{self.path}: the labels are of several types: write a .jsonl file instead") from None
            self._type = column.type
            table = table.append_column("label", column)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.partial, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


_WRITERS: dict[str, type[_Jsonl] | type[_Parquet]] = {".jsonl": _Jsonl, ".parquet": _Parquet}
