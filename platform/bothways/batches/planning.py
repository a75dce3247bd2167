"""The order of training: which views make up every optimiser step, as a plan.

A view is one row as one copy in one epoch. A plan is a pure function of its arguments, so any worker can compute its
share of any step without asking anyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bothways import seeding
from bothways.config import Augment
from bothways.contracts import Beside
from bothways.errors import UserError
from bothways.seeding import F64

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

MEGA_BATCH = 32
"""Batches that are sorted by length together: enough for little padding, few enough to keep the order random."""
MOST_COPIES = 64
"""Of a row, however rare its class."""


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
        """What rank `rank` of `world` sees: every `world`-th row of each batch, and so of each part of it, which are to
        be multiples of `world` rows."""
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
        table = as_views(self.train.take(pa.array(self.row[part])), self.epoch[part], self.copy[part])
        per_step = self.num_rows // max(1, self.progress.size)
        steps = np.arange(offset, offset + table.num_rows) // max(1, per_step)
        return table.append_column("progress", pa.array(self.progress[steps]))


def as_views(rows: pa.Table, epoch: I32 | I64, copy: I32 | I64) -> pa.Table:
    """The rows with columns `epoch` and `copy`."""
    table = rows.append_column("epoch", pa.array(epoch, pa.int32()))
    return table.append_column("copy", pa.array(copy, pa.int32()))


@dataclass(frozen=True, kw_only=True)
class Order:
    """In what order rows are shown: by default in epochs of all (row, copy).

    `classes` (N,): of each row, for `augment.balance` and for a `balanced` order: every class comes as often as any
    other, in epochs of its own. `weights` (N,): rows are drawn in proportion to these instead, one view at a time; the
    epoch of a view is how many times it has come before.
    """

    classes: I64 | None = None
    balanced: bool = False
    weights: F64 | None = None

    def draw(self, rows: I64, total: int, seed: int) -> tuple[I64, I64]:
        """`total` positions among the views of these `rows`, and the epoch of each."""
        if self.weights is not None:
            order = _drawn((self.weights / np.bincount(rows))[rows], total, seed)
            return order, _occurrences(order)
        if self.balanced:
            assert self.classes is not None
            return _balanced(self.classes[rows], total, seed)
        return _epochs(len(rows), total, seed)


def plan(lengths: I64, augment: Augment, *, batch_size: int, steps: int, seed: int, order: Order | None = None) -> Plan:
    """The views of every step, in `order`, those of like length together in a batch.

    `lengths` (N,): tokens of each training row's original. Within windows of up to `MEGA_BATCH` batches (at most about
    an epoch) views are sorted by length, cut into batches, and the batches put in random order.
    Raises `UserError` when there is nothing to show the model.
    """
    order = order or Order()
    rows, copies = _rows_and_copies(len(lengths), augment, order.classes)
    per_epoch = len(rows)
    if per_epoch == 0:
        what = "n_aug is 0 and keep_original is false" if len(lengths) else "the training split has no rows"
        raise UserError(f"there is nothing to train on: {what}")
    total = steps * batch_size
    views, epoch = order.draw(rows, total, seed)
    row, copy = rows[views], copies[views]

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


def joined(*plans: Plan) -> Plan:
    """Steps of the rows of all."""
    row, epoch, copy = (np.hstack([getattr(one, name) for one in plans]) for name in ("row", "epoch", "copy"))
    return replace(plans[0], row=row, epoch=epoch, copy=copy)


class Pool(NamedTuple):
    """The M rows that a `kind` of rows beside a batch is drawn from: where in the table the first of them stands in
    each view (`starts`), the `tokens` of each, (M,), and in what proportion they are drawn, (M,); None: in epochs."""

    kind: Beside
    starts: Sequence[int]
    tokens: I64
    weights: F64 | None = None


def with_beside(first: Plan, pools: Sequence[Pool], seed: int) -> Plan:
    """`first` with other rows beside those of each step, all in one plan: see `batching.collate_step`.

    They come by length, as those of `first` do. A row's changed view is its copy 1 in the same epoch.
    Raises `UserError` when there are no such rows.
    """
    steps, batch_size = first.row.shape
    plans = [first]
    for kind, starts, tokens, weights in pools:
        if not len(tokens):
            way_out = "data.clean_source" if kind.source == "clean" else "data.unlabelled_source"
            raise UserError(
                f"an objective reads {kind.source} text beside the labelled rows, and the data have none: name some in "
                f"{way_out}" + ("" if kind.source == "clean" else ", or give data.splits counts that leave rows over")
            )
        size = batch_size * kind.per_row
        drawn = seeding.integer(seed, "beside", kind.source, kind.per_row)
        order = Order(weights=weights)
        rows = plan(tokens, Augment(), batch_size=size, steps=steps, seed=drawn, order=order)
        plans += [
            replace(rows, row=rows.row + start, copy=rows.copy + view * kind.changed)
            for view, start in enumerate(starts)
        ]
    return joined(*plans)
