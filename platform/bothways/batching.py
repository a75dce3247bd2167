"""From rows to batches: the order of training as a plan, tokenisation as a picklable function, padding.

A view is one row as one copy in one epoch. The plan says which views make up every optimiser step. It is a pure
function of its arguments, so any worker can compute its share of any step without asking anyone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from bothways import policy, seeding
from bothways.config import Augment, InputSide, Language
from bothways.contracts import NO_LABEL, Batch, Beside
from bothways.data_config import SampleMixing
from bothways.errors import UserError
from bothways.seeding import F64
from bothways.tokenization import Vocabulary, encoder

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

MEGA_BATCH = 32
"""Batches that are sorted by length together: enough for little padding, few enough to keep the order random."""
MOST_COPIES = 64
"""Of a row, however rare its class."""
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
    plain = {"augment": Augment(), "sample_mixing": SampleMixing()}
    return side.model_copy(update=plain) if side.reconstruct else None


def plan(
    lengths: I64,
    augment: Augment,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    classes: I64 | None = None,
    balanced: bool = False,
    weights: F64 | None = None,
) -> Plan:
    """The order of training: epochs over all (row, copy) in random order, rows of like length together in a batch.

    `lengths` (N,): tokens of each training row's original. Within windows of up to `MEGA_BATCH` batches (at most about
    an epoch) views are sorted by length, cut into batches, and the batches put in random order.
    `classes` (N,): of each row, for `augment.balance` and for a `balanced` order: every class comes as often as any
    other, in epochs of its own.
    `weights` (N,): rows are drawn in proportion to these instead, one view at a time; the epoch of a view is how many
    times it has come before.
    Raises `UserError` when there is nothing to show the model.
    """
    rows, copies = _rows_and_copies(len(lengths), augment, classes)
    per_epoch = len(rows)
    if per_epoch == 0:
        what = "n_aug is 0 and keep_original is false" if len(lengths) else "the training split has no rows"
        raise UserError(f"there is nothing to train on: {what}")
    total = steps * batch_size
    if weights is not None:
        order = _drawn((weights / np.bincount(rows))[rows], total, seed)
        epoch = _occurrences(order)
    elif balanced:
        assert classes is not None
        order, epoch = _balanced(classes[rows], total, seed)
    else:
        order, epoch = _epochs(per_epoch, total, seed)
    row, copy = rows[order], copies[order]

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


def _rows_and_copies(count: int, augment: Augment, classes: I64 | None) -> tuple[I64, I64]:
    """All views of an epoch, row after row: row and copy of each."""
    first = 0 if augment.keep_original else 1
    last = np.full(count, augment.n_aug)
    if augment.balance and count:
        assert classes is not None
        sizes = np.bincount(classes)
        views = sizes.max() * (augment.n_aug + 1 - first)  # that every class is to have
        wanted = np.rint(views / sizes[classes]).astype(np.int64) - 1 + first
        last = np.clip(wanted, augment.n_aug, MOST_COPIES)
    each = last + 1 - first
    starts = np.cumsum(each) - each
    copies = np.arange(each.sum()) - np.repeat(starts, each) + first
    return np.repeat(np.arange(count), each), copies


def _epochs(count: int, total: int, seed: int) -> tuple[I64, I64]:
    """`total` of the numbers below `count`, each once in an epoch in random order, and their epochs."""
    epochs = -(-total // count)
    order = [seeding.permutation(count, seed, "order", epoch) for epoch in range(epochs)]
    return np.concatenate(order)[:total], np.arange(total) // count


def _balanced(classes: I64, total: int, seed: int) -> tuple[I64, I64]:
    """As `_epochs`, for views of these classes: each class once in every C places, in random order."""
    kinds = np.unique(classes)
    draws = seeding.keys(seed, "classes", np.arange(-(-total // len(kinds)) * len(kinds)))
    turns = np.argsort(draws.reshape(-1, len(kinds)), axis=1, kind="stable").ravel()[:total]
    order, epoch = np.empty(total, np.int64), np.empty(total, np.int64)
    for number, kind in enumerate(kinds.tolist()):
        members, places = np.flatnonzero(classes == kind), np.flatnonzero(turns == number)
        if len(places):
            drawn, epoch[places] = _epochs(len(members), len(places), seeding.integer(seed, "class", kind))
            order[places] = members[drawn]
    return order, epoch


def _drawn(weights: F64, total: int, seed: int) -> I64:
    """`total` positions in `weights`, each drawn in proportion to them, (total,)."""
    up_to = np.cumsum(weights)
    found = np.searchsorted(up_to, seeding.uniforms(seeding.keys(seed, "drawn", np.arange(total))) * up_to[-1], "right")
    return np.asarray(np.minimum(found, np.flatnonzero(weights)[-1]), np.int64)


def _occurrences(values: I64) -> I64:
    """How many equal values came before each, (N,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    before = np.empty_like(values)
    before[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    return before


def joined(first: Plan, second: Plan) -> Plan:
    """Steps of the rows of both."""
    row, epoch, copy = (np.hstack([getattr(one, name) for one in (first, second)]) for name in ("row", "epoch", "copy"))
    return replace(first, row=row, epoch=epoch, copy=copy)


def with_beside(first: Plan, pools: Sequence[tuple[Beside, int, I64]], seed: int) -> Plan:
    """`first` with other rows beside those of each step, all in one plan: see `collate_step`.

    `pools`: what is asked for, the position of its first row in the table, and the tokens of each of its rows, (M,).
    They come in epochs and by length as those of `first` do. A row's changed view is its copy 1 in the same epoch.
    Raises `UserError` when there are no such rows.
    """
    steps, batch_size = first.row.shape
    plans = [first]
    for kind, start, tokens in pools:
        if not len(tokens):
            raise UserError(f"an objective reads {kind.source} text beside the labelled rows, and the data have none")
        size = batch_size * kind.per_row
        drawn = seeding.integer(seed, "beside", kind.source, kind.per_row)
        rows = plan(tokens, Augment(), batch_size=size, steps=steps, seed=drawn)
        rows = replace(rows, row=rows.row + start)
        plans += [replace(rows, copy=rows.copy + view) for view in range(kind.views)]
    row, epoch, copy = (np.hstack([getattr(one, name) for one in plans]) for name in ("row", "epoch", "copy"))
    return replace(first, row=row, epoch=epoch, copy=copy)


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

    def __call__(self, views: pa.Table) -> pa.Table:
        """`input_ids` (list of int32), `token_type_ids` (pairs whose tokenizer has them), `label`, `is_copy`."""
        read = views
        if self.side is not None:
            read = policy.read(
                views, side=self.side, language=self.language, seed=self.seed, statistics=self.statistics
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
        labels=torch.from_numpy(np.array(rows["label"].fill_null(NO_LABEL).to_numpy(), np.int64)),
        is_copy=torch.from_numpy(np.array(rows["is_copy"].to_numpy(), bool)),
    )


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
