"""What a model reads, made from labelled rows: reconstruction for all, one sub-policy per augmented copy.

Operations with probabilities, in order, make a sub-policy; several of those make a policy. The terms are AutoAugment's
(Cubuk et al. 2019), on text as in Text AutoAugment (Ren et al. 2021); schedules are those of population-based
augmentation (Ho et al. 2019), over optimiser steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bothways.config import InputSide, Language, Operation, Schedule
from bothways.errors import UserError
from bothways.input_side.examples import Examples
from bothways.input_side.label_words import LabelWords
from bothways.input_side.lookup import WordSet
from bothways.input_side.statistics import Statistics as Statistics
from bothways.input_side.transform import InputContext, Transform
from bothways.policy.places import Places
from bothways.seeding import F64, U64, below, keys, uniforms
from bothways.text import Segmentation, TextBatch

_CHUNK = 2048
"""Rows worked on at once: the arrays of as many sentences stay in a core's cache."""


def statistics(
    train: pa.Table,
    language: str,
    segmentation: Segmentation = "character",
    *,
    label_words: bool = False,
    examples: bool = False,
) -> Statistics:
    """Word counts of the training rows, text and pair together. `train`: columns `text` and `pair` (null when single).

    `label_words`: also which words carry the label, for which `train` needs its column `label`.
    Words are segmented alike in every language; `language` is part of the signature for lexicons that are not.
    `examples`: with the rows themselves, where they are single texts and `label` has the number of a class.
    Raises `UserError` where label words are asked for and rows are not of one class each.
    """
    columns = [train.column(name) for name in ("text", "pair") if name in train.column_names]
    texts = [text for column in columns for text in column.to_pylist() if text is not None]
    counted = Statistics.of(texts, segmentation)
    if examples:
        counted = replace(counted, examples=_examples(train, segmentation))
    if not label_words:
        return counted
    if "label" not in train.column_names or not pa.types.is_integer(train.column("label").type):
        raise UserError("protect.label_words needs rows with one class each as their label: set it to 0 without them")
    labels = [train.column("label").filter(column.is_valid()).to_numpy() for column in columns]
    return replace(counted, label_words=LabelWords.of(texts, np.concatenate(labels), segmentation))


def _examples(train: pa.Table, segmentation: Segmentation) -> Examples | None:
    single = "pair" not in train.column_names or train.column("pair").null_count == train.num_rows
    if not single or "label" not in train.column_names or not pa.types.is_integer(train.column("label").type):
        return None
    return Examples(train.column("text").to_pylist(), _integers(train, "label"), segmentation)


def transforms(side: InputSide) -> Iterator[Transform]:
    """Every transform of a side."""
    yield from side.reconstruct
    yield from (operation.transform for operation in chain.from_iterable(side.augment.policy))


def takes_examples(side: InputSide) -> bool:
    """Whether a transform of this side asks for the training rows themselves."""
    return any(transform.takes_examples for transform in transforms(side))


def loads_model(side: InputSide) -> bool:
    """Whether a transform of this side has a language model write."""
    return any(transform.loads_model for transform in transforms(side))


def read(
    views: pa.Table,
    *,
    side: InputSide,
    language: Language,
    seed: int,
    statistics: Statistics | None,
    places: str | None = None,
    model: str = "",
) -> pa.Table:
    """The views with `text` and `pair` as the model shall read them; same rows, order and other columns.

    `places`: the column of text whose places the labels name; these move with it (see `policy.places`).

    `views`: columns id, text, pair, label, epoch, copy, and progress (see `planning.Plan`) where they are part of a
    training; elsewhere schedules are constant. Copy 0 is the original and is reconstructed only; so is everything in
    epoch -1 (evaluation). A row's result depends on (seed, epoch, id, copy, column, place in the policy), its text, and
    its progress where an operation has a schedule. `model`: the source of the model that reads them, for operations
    that ask what it holds alike.
    Raises `UserError` when a transform cannot read the language or lacks what it needs.
    """
    check(side, language)
    context = InputContext(
        language=language, statistics=statistics, protect=side.protect, segmentation=side.segmentation, model=model
    )
    row_keys, drawn = _row_keys(views, seed), sub_policies(views, side, seed)
    augmenting = replace(context, label_words=_label_words(side, statistics)) if (drawn >= 0).any() else context
    progress = views.column("progress").to_numpy() if "progress" in views.column_names else None
    todo = np.arange(len(views)) if side.reconstruct else np.flatnonzero(drawn >= 0)
    for name in ("text", "pair"):
        if name in views.column_names and todo.size:
            column = views.column(name)
            followed = Places(views["label"]) if name == places else None
            rows = _Rows(keys(row_keys, name), drawn, progress, followed)
            changed = _column(column, todo, rows, side, (context, augmenting))
            views = views.set_column(views.column_names.index(name), name, changed)
            if followed is not None:
                views = views.set_column(views.column_names.index("label"), "label", followed.column())
    return views


def sub_policies(views: pa.Table, side: InputSide, seed: int) -> npt.NDArray[np.int64]:
    """The number of the sub-policy that each view draws, (N,); -1 where it is not augmented."""
    augmented = (_integers(views, "copy") > 0) & (_integers(views, "epoch") >= 0) & bool(side.augment.policy)
    bits = keys(_row_keys(views, seed), "sub-policy")
    return np.where(augmented, below(bits, max(1, len(side.augment.policy))), -1)


def _label_words(side: InputSide, statistics: Statistics | None) -> WordSet | None:
    share = side.protect.label_words
    if not share:
        return None
    if statistics is None or statistics.label_words is None:
        raise UserError("protect.label_words needs labelled training rows to find them in: set it to 0 without them")
    return statistics.label_words.first(share)


def _row_keys(views: pa.Table, seed: int) -> U64:
    epoch, copy, row_id = (_integers(views, name) for name in ("epoch", "copy", "id"))
    return keys(seed, epoch, row_id, copy) if len(views) else np.empty(0, dtype=np.uint64)


def check(side: InputSide, language: str) -> None:
    """Raises `UserError` when a transform of this side cannot read the language."""
    for transform in transforms(side):
        if language not in transform.languages:
            raise UserError(f"{transform.name} reads {', '.join(transform.languages)}, but the data is {language!r}")


def augments(side: InputSide) -> bool:
    """Whether training shows changed copies of rows beside, or instead of, the rows as they are."""
    return bool((side.augment.n_aug or side.augment.balance) and side.augment.policy)


def _integers(views: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(views.column(name).to_numpy(), dtype=np.int64)


@dataclass(frozen=True)
class _Rows:
    """Of every row: its key for one column, (N,), the sub-policy it has drawn, its progress or None, and the places in
    its text that move with it, if any do."""

    keys: U64
    drawn: npt.NDArray[np.int64]
    progress: F64 | None
    places: Places | None


def _column(
    column: pa.ChunkedArray,
    todo: npt.NDArray[np.int64],
    rows: _Rows,
    side: InputSide,
    contexts: tuple[InputContext, InputContext],
) -> pa.Array:
    """One text column with the rows `todo` changed: grouped by sub-policy, in chunks. Nulls stay.

    `contexts`: of reconstruction and of augmentation.
    """
    context, augmenting = contexts
    present = column.is_valid().to_numpy()
    todo = todo[present[todo]]
    drawn = rows.drawn
    order = todo[np.argsort(drawn[todo], kind="stable")]
    parts, place = list(column.chunks), np.arange(len(column))
    for number in np.unique(drawn[todo]).tolist():
        group = order[drawn[order] == number]
        operations = side.augment.policy[number] if number >= 0 else ()
        for start in range(0, group.size, _CHUNK):
            at = group[start : start + _CHUNK]
            batch = context.read(column.take(pa.array(at)).to_pylist(), rows.keys[at])
            if rows.places is not None:
                batch = rows.places.protect(batch, at)
            batch = _reconstructed(batch, side.reconstruct, context)
            progress = None if rows.progress is None else rows.progress[at]
            if operations:
                batch = augment(augmenting.guarded(batch), operations, augmenting, number, progress)
            if rows.places is not None:
                rows.places.follow(batch, at)
            place[at] = sum(map(len, parts)) + np.arange(at.size)
            parts.append(pa.array(batch.texts(), column.type))
    return pa.concat_arrays(parts).take(pa.array(place))


def _reconstructed(batch: TextBatch, transforms: Sequence[Transform], context: InputContext) -> TextBatch:
    for place, transform in enumerate(transforms):
        batch = transform(batch, replace(context, slot=f"reconstruct/{place}"))
    return batch


def augment(
    batch: TextBatch,
    operations: Sequence[Operation],
    context: InputContext,
    number: int = 0,
    progress: F64 | None = None,
) -> TextBatch:
    """Applies a sub-policy's operations in order, each to a row with its probability.

    `number`: the sub-policy's. `progress`: of each row, (R,), for schedules; None: they are constant.
    """
    for place, operation in enumerate(operations):
        slot = f"augment/{number}/{place}"
        strength = _strength(operation, batch.keys, slot, progress)
        batch = operation.transform(batch, replace(context, slot=slot, strength=strength))
    return batch


def _strength(operation: Operation, row_keys: U64, slot: str, progress: F64 | None) -> F64 | None:
    """How strongly the operation is applied to each row, (R,): 0 where it is not. None stands for ones."""
    factor = None if progress is None else factors(operation.schedule, progress)
    probability: float | F64 = operation.probability
    if factor is not None and "p" not in type(operation.transform).model_fields:
        probability, factor = probability * factor, None
    if isinstance(probability, float) and probability >= 1:
        return factor
    applied = (uniforms(row_keys, slot) < probability).astype(np.float64)
    return applied if factor is None else applied * factor


def factors(schedule: Schedule, progress: F64) -> F64 | None:
    """What a schedule multiplies by at each share of the training; None: by one."""
    if schedule == "constant":
        return None
    if schedule == "rising":
        return progress
    if schedule == "falling":
        return 1.0 - progress
    shares, values = np.asarray(schedule, dtype=np.float64).T
    return np.asarray(values[np.maximum(np.searchsorted(shares, progress, side="right") - 1, 0)])
