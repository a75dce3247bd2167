"""What a model reads, made from labelled rows: reconstruction for all, one sub-policy per augmented copy.

Operations with probabilities, in order, make a sub-policy; several of those make a policy. The terms are AutoAugment's
(Cubuk et al. 2019), on text as in Text AutoAugment (Ren et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bothways.config import InputSide, Language, Operation
from bothways.errors import UserError
from bothways.input_side.statistics import Statistics as Statistics
from bothways.input_side.transform import InputContext, Transform
from bothways.seeding import U64, below, keys, uniforms
from bothways.text import Segmentation, TextBatch

_CHUNK = 2048
"""Rows worked on at once: the arrays of as many sentences stay in a core's cache."""


def statistics(train: pa.Table, language: str, segmentation: Segmentation = "character") -> Statistics:
    """Word counts of the training rows, text and pair together. `train`: columns `text` and `pair` (null when single).

    Words are segmented alike in every language; `language` is part of the signature for lexicons that are not.
    """
    columns = (train.column(name).to_pylist() for name in ("text", "pair") if name in train.column_names)
    return Statistics.of([text for text in chain.from_iterable(columns) if text is not None], segmentation)


def read(views: pa.Table, *, side: InputSide, language: Language, seed: int, statistics: Statistics | None) -> pa.Table:
    """The views with `text` and `pair` as the model shall read them; same rows, order and other columns.

    `views`: columns id, text, pair, label, epoch, copy. Copy 0 is the original and is reconstructed only; so is
    everything in epoch -1 (evaluation). A row's result depends on (seed, epoch, id, copy, column, place in the policy)
    and on its text. Raises `UserError` when a transform cannot read the language or lacks what it needs.
    """
    check(side, language)
    context = InputContext(
        language=language, statistics=statistics, protect=side.protect, segmentation=side.segmentation
    )
    epoch, copy, row_id = (_integers(views, name) for name in ("epoch", "copy", "id"))
    augmented = (copy > 0) & (epoch >= 0) & bool(side.augment.policy)
    row_keys = keys(seed, epoch, row_id, copy) if len(views) else np.empty(0, dtype=np.uint64)
    drawn = np.where(augmented, below(keys(row_keys, "sub-policy"), max(1, len(side.augment.policy))), -1)
    todo = np.arange(len(views)) if side.reconstruct else np.flatnonzero(augmented)
    for name in ("text", "pair"):
        if name in views.column_names and todo.size:
            column = views.column(name)
            changed = _column(column, todo, drawn, keys(row_keys, name), side, context)
            views = views.set_column(views.column_names.index(name), name, changed)
    return views


def check(side: InputSide, language: str) -> None:
    """Raises `UserError` when a transform of this side cannot read the language."""
    operations = (operation.transform for operation in chain.from_iterable(side.augment.policy))
    for transform in chain(side.reconstruct, operations):
        if language not in transform.languages:
            raise UserError(f"{transform.name} reads {', '.join(transform.languages)}, but the data is {language!r}")


def augments(side: InputSide) -> bool:
    """Whether training shows changed copies of rows beside, or instead of, the rows as they are."""
    return bool(side.augment.n_aug and side.augment.policy)


def _integers(views: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(views.column(name).to_numpy(), dtype=np.int64)


def _column(
    column: pa.ChunkedArray,
    todo: npt.NDArray[np.int64],
    drawn: npt.NDArray[np.int64],
    row_keys: U64,
    side: InputSide,
    context: InputContext,
) -> pa.Array:
    """One text column with the rows `todo` changed: grouped by sub-policy, in chunks. Nulls stay."""
    present = column.is_valid().to_numpy()
    todo = todo[present[todo]]
    order = todo[np.argsort(drawn[todo], kind="stable")]
    parts, place = list(column.chunks), np.arange(len(column))
    for number in np.unique(drawn[todo]).tolist():
        group = order[drawn[order] == number]
        operations = side.augment.policy[number] if number >= 0 else ()
        for start in range(0, group.size, _CHUNK):
            rows = group[start : start + _CHUNK]
            batch = context.read(column.take(pa.array(rows)).to_pylist(), row_keys[rows])
            batch = _reconstructed(batch, side.reconstruct, context)
            changed = augment(batch, operations, context, number).texts()
            place[rows] = sum(map(len, parts)) + np.arange(rows.size)
            parts.append(pa.array(changed, column.type))
    return pa.concat_arrays(parts).take(pa.array(place))


def _reconstructed(batch: TextBatch, transforms: Sequence[Transform], context: InputContext) -> TextBatch:
    for place, transform in enumerate(transforms):
        batch = transform(batch, replace(context, slot=f"reconstruct/{place}"))
    return batch


def augment(batch: TextBatch, operations: Sequence[Operation], context: InputContext, number: int = 0) -> TextBatch:
    """Applies a sub-policy's operations in order, each to a row with its probability. `number`: the sub-policy's."""
    for place, operation in enumerate(operations):
        slot = f"augment/{number}/{place}"
        applied = uniforms(batch.keys, slot) < operation.probability if operation.probability < 1 else None
        strength = None if applied is None else applied.astype(np.float64)
        batch = operation.transform(batch, replace(context, slot=slot, strength=strength))
    return batch
