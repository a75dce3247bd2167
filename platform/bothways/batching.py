"""From rows to batches: the order of training as a plan, tokenisation as a picklable function, padding.

A view is one row as one copy in one epoch. The plan says which views make up every optimiser step. It is a pure
function of its arguments, so any worker can compute its share of any step without asking anyone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from bothways import policy, seeding
from bothways.config import Augment, InputSide, Language
from bothways.contracts import Batch
from bothways.errors import UserError
from bothways.seeding import F64
from bothways.tokenization import Vocabulary, encoder

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

MEGA_BATCH = 32
"""Batches that are sorted by length together: enough for little padding, few enough to keep the order random."""
EVALUATION = -1
"""The epoch of rows that are evaluated or served: reconstruction only, no augmentation."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which views each optimiser step sees: int64 arrays of shape (steps, batch size).

    `row`: position in the training table. `epoch`: from 0. `copy`: 0 the original, 1… the augmented copies.
    `progress`: float64 (steps,), the share of the training that lies before each step.
    Every (row, copy) occurs once in each epoch; every batch is full, so epochs meet inside one.
    """

    row: I64
    epoch: I64
    copy: I64
    progress: F64

    def share(self, rank: int, world: int) -> Plan:
        """What rank `rank` of `world` sees: every `world`-th row of each batch.

        Raises `UserError` when the batch cannot be divided evenly.
        """
        if self.row.shape[1] % world:
            raise UserError(f"optim.batch_size {self.row.shape[1]} cannot be divided by {world} workers")
        mine = np.s_[:, rank::world]
        return Plan(row=self.row[mine], epoch=self.epoch[mine], copy=self.copy[mine], progress=self.progress)

    def steps(self, start: int, stop: int) -> Plan:
        """Steps `start` to `stop` only."""
        part = np.s_[start:stop]
        return Plan(row=self.row[part], epoch=self.epoch[part], copy=self.copy[part], progress=self.progress[part])

    def views(self, train: pa.Table) -> PlannedViews:
        """The views in order."""
        row, epoch, copy = (part.ravel().astype(np.int32) for part in (self.row, self.epoch, self.copy))
        return PlannedViews(train, row, epoch, copy, self.progress)


@dataclass(frozen=True)
class PlannedViews:
    """`contracts.Views` of a plan over the rows `train`: 12 bytes a view until its slice is asked for.

    `progress`: one for each step, of equally many views.
    """

    train: pa.Table
    row: I32
    epoch: I32
    copy: I32
    progress: F64

    @property
    def num_rows(self) -> int:
        return self.row.size

    def slice(self, offset: int, length: int) -> pa.Table:
        """The training columns, `epoch`, `copy` and `progress` of views `offset` to `offset + length`."""
        part = np.s_[offset : offset + length]
        table = _views(self.train.take(pa.array(self.row[part])), self.epoch[part], self.copy[part])
        per_step = self.num_rows // max(1, self.progress.size)
        steps = np.arange(offset, offset + table.num_rows) // max(1, per_step)
        return table.append_column("progress", pa.array(self.progress[steps]))


def _views(rows: pa.Table, epoch: I32 | I64, copy: I32 | I64) -> pa.Table:
    table = rows.append_column("epoch", pa.array(epoch, pa.int32()))
    return table.append_column("copy", pa.array(copy, pa.int32()))


def evaluation_views(rows: pa.Table) -> pa.Table:
    """The rows as views that are evaluated or served."""
    zeros = np.zeros(rows.num_rows, np.int64)
    return _views(rows, zeros + EVALUATION, zeros)


def evaluation_side(side: InputSide) -> InputSide | None:
    """What of an input side applies to rows that are evaluated or served; None when that is nothing."""
    return side.model_copy(update={"augment": Augment()}) if side.reconstruct else None


def plan(lengths: I64, augment: Augment, *, batch_size: int, steps: int, seed: int) -> Plan:
    """The order of training: epochs over all (row, copy) in random order, rows of like length together in a batch.

    `lengths` (N,): tokens of each training row's original. Within windows of up to `MEGA_BATCH` batches (at most about
    an epoch) views are sorted by length, cut into batches, and the batches put in random order.
    Raises `UserError` when there is nothing to show the model.
    """
    copies = np.arange(0 if augment.keep_original else 1, augment.n_aug + 1)
    per_epoch = len(lengths) * len(copies)
    if per_epoch == 0:
        what = "the training split has no rows" if len(copies) else "n_aug is 0 and keep_original is false"
        raise UserError(f"there is nothing to train on: {what}")
    total = steps * batch_size
    epochs = -(-total // per_epoch)
    order = np.concatenate([seeding.permutation(per_epoch, seed, "order", epoch) for epoch in range(epochs)])[:total]
    row, copy = order // len(copies), copies[order % len(copies)]
    epoch = np.arange(total) // per_epoch

    window = min(MEGA_BATCH, -(-per_epoch // batch_size)) * batch_size
    arranged = []
    for number, start in enumerate(range(0, total, window)):
        stop = min(start + window, total)
        by_length = start + np.argsort(lengths[row[start:stop]], kind="stable")
        shuffled = seeding.permutation((stop - start) // batch_size, seed, "batches", number)
        arranged.append(by_length.reshape(-1, batch_size)[shuffled])
    at = np.concatenate(arranged)
    progress = np.arange(steps) / steps
    return Plan(row=row[at], epoch=epoch[at], copy=copy[at], progress=progress)


@dataclass(frozen=True, kw_only=True)
class Encode:
    """`contracts.Encode`: views to token ids, through the input side. Picklable; the tokenizer travels as its path and
    the `vocabulary` that is kept of it (None: all).

    `side` None leaves the text as it is. `paired`: `pair` is read as the second segment.
    """

    tokenizer_path: str
    max_length: int
    paired: bool
    vocabulary: Vocabulary | None = None
    side: InputSide | None = None
    language: Language = "en"
    seed: int = 0
    statistics: policy.Statistics | None = None

    @property
    def loads_model(self) -> bool:
        """Whether a language model writes, which takes seconds for some dozens of rows."""
        return self.side is not None and policy.loads_model(self.side)

    def __call__(self, views: pa.Table) -> pa.Table:
        """`input_ids` (list of int32), `token_type_ids` (pairs whose tokenizer has them), `label`, `is_copy`."""
        read = views
        if self.side is not None:
            read = policy.read(
                views,
                side=self.side,
                language=self.language,
                seed=self.seed,
                statistics=self.statistics,
                model=self.tokenizer_path,
            )
        texts = [read[name] for name in (("text", "pair") if self.paired else ("text",))]
        encoded = encoder(self.tokenizer_path, self.vocabulary)(self.max_length, *texts)
        columns = {"input_ids": encoded.ids}
        if encoded.types is not None:
            columns["token_type_ids"] = encoded.types
        return pa.table(
            {**columns, "label": read["label"], "is_copy": pa.array(read["copy"].to_numpy() > 0)},
        )


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


def collate(rows: pa.Table, pad_id: int) -> Batch:
    """Encoded rows as a batch on the CPU, padded to the longest."""
    counts = lengths(rows)
    real = np.arange(counts.max(initial=0)) < counts[:, None]

    def padded(column: str, fill: int) -> torch.Tensor:
        out = np.full(real.shape, fill, np.int64)
        out[real] = rows[column].combine_chunks().flatten().to_numpy()
        return torch.from_numpy(out)

    inputs = {"input_ids": padded("input_ids", pad_id), "attention_mask": torch.from_numpy(real.astype(np.int64))}
    if "token_type_ids" in rows.column_names:
        inputs["token_type_ids"] = padded("token_type_ids", 0)
    return Batch(
        inputs=inputs,
        labels=torch.from_numpy(np.array(rows["label"].to_numpy(), np.int64)),
        is_copy=torch.from_numpy(np.array(rows["is_copy"].to_numpy(), bool)),
    )
