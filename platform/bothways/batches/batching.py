"""From rows to batches: tokenisation as a picklable function, padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bothways import policy
from bothways.batches.planning import I64, as_views
from bothways.config import Augment, Experiment, InputSide, Language
from bothways.config.domains import SampleMixing
from bothways.contracts import EVALUATION, NO_LABEL, Batch, Beside
from bothways.lazy import torch
from bothways.registry import TASKS
from bothways.task_contract import TaskLike
from bothways.text import ragged
from bothways.tokenization import Backend, ModelReader, Vocabulary, backend

if TYPE_CHECKING:
    from bothways.models import Bundle


def evaluation_views(rows: pa.Table) -> pa.Table:
    """The rows as views that are evaluated or served."""
    zeros = np.zeros(rows.num_rows, np.int64)
    return as_views(rows, zeros + EVALUATION, zeros)


def evaluation_side(side: InputSide) -> InputSide | None:
    """What of an input side applies to rows that are evaluated or served; None when that is nothing."""
    plain = {"augment": Augment(), "sample_mixing": SampleMixing()}
    return side.model_copy(update=plain) if side.reconstruct else None


@dataclass(frozen=True, kw_only=True)
class Encode:
    """`contracts.Encode`: views to token ids, through the input side. Picklable; the tokenizer is named by its path and
    the `vocabulary` that is kept of it (None: all), and travels as its `backend`: a process that only encodes imports
    neither transformers nor torch for it.

    `side` None leaves the text as it is. `paired`: `pair` is read as the second segment. `task`: what is read beside
    the text. `start`: the token that the model's decoder begins with, if it has one.
    """

    tokenizer_path: str
    max_length: int
    paired: bool
    vocabulary: Vocabulary | None = None
    side: InputSide | None = None
    language: Language = "en"
    seed: int = 0
    statistics: policy.Statistics | None = None
    task: TaskLike = field(default_factory=lambda: TASKS.build("classification"))
    start: int | None = None
    backend: Backend | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "backend": self.backend or backend(self.tokenizer_path, self.vocabulary)}

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        bundle: Bundle,
        *,
        paired: bool,
        side: InputSide | None,
        statistics: policy.Statistics | None = None,
    ) -> Encode:
        """As the model in `bundle` reads the rows of an experiment."""
        return cls(
            tokenizer_path=bundle.path,
            max_length=experiment.model.max_length,
            paired=paired,
            vocabulary=bundle.vocabulary,
            side=side,
            language=experiment.data.language,
            seed=experiment.seed,
            statistics=statistics,
            task=experiment.task,
            start=bundle.start_id,
        )

    @property
    def loads_model(self) -> bool:
        """Whether a language model writes, which takes seconds for some dozens of rows."""
        return self.side is not None and policy.loads_model(self.side)

    def __call__(self, views: pa.Table) -> pa.Table:
        """What `TaskLike.encode` makes of the views as they are read, and `is_copy`."""
        reader = ModelReader(
            path=self.tokenizer_path,
            vocabulary=self.vocabulary,
            max_length=self.max_length,
            start=self.start,
            seed=self.seed,
            backend=self.backend,
        )
        columns = ("text", "pair") if self.paired else ("text",)
        read = self._read(views)
        encoded = self.task.encode(read, columns, reader)
        if (read["epoch"].to_numpy() != EVALUATION).any():
            encoded.pop("reference", None)
            return pa.table({**encoded, "is_copy": pa.array(read["copy"].to_numpy() > 0)})
        return pa.table({**encoded, "is_copy": pa.array(np.zeros(len(encoded["label"]), bool))})

    def _read(self, views: pa.Table) -> pa.Table:
        """The views through the input side; a change that would damage a row's labels is refused."""
        if self.side is None:
            return views
        read = policy.read(
            views,
            side=self.side,
            language=self.language,
            seed=self.seed,
            statistics=self.statistics,
            places=self.task.places,
            model=self.tokenizer_path,
        )
        broken = self.task.broken(views, read)
        if not broken.any():
            return read
        both = pa.concat_tables([read, views])
        return both.take(pa.array(np.arange(len(broken)) + len(broken) * broken))


def lengths(encoded: pa.Table) -> I64:
    """Tokens of each encoded row, (N,)."""
    counts = encoded["input_ids"].combine_chunks().value_lengths()
    return np.asarray(counts.to_numpy(zero_copy_only=False), np.int64)


def regroup(blocks: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Tables of exactly `size` rows from tables of any sizes, in order; the last one may be shorter."""
    waiting: list[pa.Table] = []
    held = 0
    for block in blocks:
        waiting.append(block)
        held += block.num_rows
        if held < size:
            continue
        joined = pa.concat_tables(waiting)
        whole = held - held % size
        yield from (joined.slice(start, size) for start in range(0, whole, size))
        waiting, held = [joined.slice(whole)], held - whole
    if held:
        yield pa.concat_tables(waiting)


def of_like_length(encoded: pa.Table, task: TaskLike) -> tuple[Iterator[pa.Table], I64]:
    """The rows of an evaluation, short ones first, in tables of up to `task.evaluation_rows` encoded rows; and which
    row comes at each place, (N,). The encoded rows of one row stay together, in their order."""
    firsts = np.flatnonzero(task.begins(encoded))
    counts = np.diff(np.append(firsts, encoded.num_rows))
    tokens = np.add.reduceat(lengths(encoded), firsts) if len(firsts) else np.zeros(0, np.int64)
    order = np.argsort(tokens, kind="stable")
    edges, held = [0], 0
    for place, count in enumerate(counts[order].tolist()):
        if held and held + count > task.evaluation_rows:
            edges.append(place)
            held = 0
        held += count
    edges.append(len(order))
    parts = (order[start:stop] for start, stop in pairwise(edges) if start < stop)
    return (encoded.take(pa.array(ragged(firsts[part], counts[part]))) for part in parts), order


def collate(rows: pa.Table, pad_id: int) -> Batch:
    """Encoded rows as a batch on the CPU, every column of lists padded to its longest.

    `label`: whole numbers (N,), floats (N,) or (N, L) in lists of equal length, or lists of whole numbers.
    """
    counts = lengths(rows)
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    inputs = {
        name: _padded(rows[name], pad_id if name.endswith("input_ids") else 0)
        for name in rows.column_names
        if name not in ("label", "is_copy", "reference")
    }
    return Batch(
        inputs={**inputs, "attention_mask": torch.from_numpy(real.astype(np.int64))},
        labels=_labels(rows["label"]),
        is_copy=torch.from_numpy(np.array(rows["is_copy"].to_numpy(), bool)),
        references=tuple(rows["reference"].to_pylist()) if "reference" in rows.column_names else (),
    )


def _padded(column: pa.ChunkedArray, fill: int) -> torch.Tensor:
    lists = column.combine_chunks()
    counts = lists.value_lengths().to_numpy(zero_copy_only=False)
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    out = np.full(real.shape, fill, np.int64)
    out[real] = lists.flatten().to_numpy()
    return torch.from_numpy(out)


def _labels(column: pa.ChunkedArray) -> torch.Tensor:
    if pa.types.is_floating(column.type):
        return torch.from_numpy(np.array(column.to_numpy(), np.float32))
    if not pa.types.is_list(column.type):
        return torch.from_numpy(np.array(column.fill_null(NO_LABEL).to_numpy(), np.int64))
    if pa.types.is_floating(column.type.value_type):
        flat = column.combine_chunks().flatten().to_numpy()
        return torch.from_numpy(np.array(flat, np.float32).reshape(len(column), -1))
    return _padded(column, NO_LABEL)


def collate_step(table: pa.Table, pad_id: int, beside: Sequence[Beside]) -> Batch:
    """The views of one step of a joined plan as a batch with what is `beside` it: see `with_beside`."""
    whole = collate(table, pad_id)
    rows = len(whole) // (1 + sum(kind.per_row * kind.views for kind in beside))
    found, start = {}, rows
    for kind in beside:
        size = rows * kind.per_row
        stop = start + size * kind.views
        found[kind] = tuple(whole.slice(at, at + size) for at in range(start, stop, size))
        start = stop
    return replace(whole.slice(0, rows), beside=found)
