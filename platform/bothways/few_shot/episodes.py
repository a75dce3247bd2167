"""Episodes: which classes are for meta-training and which judge it, and which rows an episode has.

A draw is a function of counters, as everywhere: an episode depends on its key and its pool, on nothing drawn before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bothways.config.few_shot import Classes, Episodes
from bothways.data import Dataset
from bothways.errors import UserError, did_you_mean
from bothways.seeding import permutation

I64 = npt.NDArray[np.int64]
Pool = dict[str, I64]
"""The rows of each class that an episode may draw from."""


@dataclass(frozen=True, kw_only=True)
class Pools:
    """`table`: all rows. `train`: what episodes of meta-training draw from, one pool or one for each domain; `test`:
    what those that judge draw from. No row is in both kinds. `notes`: a line on what is left out."""

    table: pa.Table
    train: tuple[Pool, ...]
    test: Pool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An episode of `ways` classes: row numbers of the support (shots, ways) and of the query (queries, ways)."""

    support: I64
    query: I64


def pools(dataset: Dataset, classes: Classes | None, shape: Episodes) -> Pools:
    """The rows of all splits by class. A class that meta-training sees judges nothing, so that no split is left out.

    Raises `UserError`: no such class, one both meta-trained on and judged by, fewer classes than `ways`, no class or a
    named one with too few rows.
    """
    labels = dataset.labels
    own = pa.concat_tables([dataset.train, dataset.selection, dataset.test])
    tables = [own, *dataset.mixed]
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    by_class = [_by_class(table, labels, int(start)) for table, start in zip(tables, starts, strict=False)]
    if classes is None and not dataset.mixed:
        raise UserError("few_shot.classes is missing: say which classes to train on, {train: 20}, or give data.mix")
    train, test = (labels, labels) if classes is None else divide(by_class[0], classes, shape)
    left_out: list[str] = []
    sources = by_class[1:] or by_class[:1]
    found = [
        _enough(pool, names, shape, asked, left_out)
        for pool, names, asked in (
            *((pool, train, classes and classes.train) for pool in sources),
            (by_class[0], test, classes and classes.test),
        )
    ]
    return Pools(table=pa.concat_tables(tables), train=tuple(found[:-1]), test=found[-1], notes=tuple(left_out))


def divide(rows: Pool, classes: Classes, shape: Episodes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the classes to meta-train on and of those to judge by."""
    common = sorted(rows, key=lambda label: (-len(rows[label]), label))
    for given in (classes.train, classes.test):
        for label in given if isinstance(given, tuple) else ():
            if label not in rows:
                raise UserError(f"few_shot.classes: no class {label!r}: {did_you_mean(label, rows)}")
    train = classes.train if isinstance(classes.train, tuple) else tuple(common[: classes.train])
    if isinstance(classes.test, tuple):
        if both := sorted(set(train) & set(classes.test)):
            raise UserError(f"few_shot.classes: {both[0]!r} is in train and in test: a class can be in one of them")
        return train, classes.test
    others = [label for label in common if label not in train]
    if classes.test is None:
        return train, tuple(others)
    usable = [label for label in others if len(rows[label]) >= shape.shots + shape.queries]
    if len(usable) < classes.test:
        raise UserError(
            f"few_shot.classes.test asks for {classes.test} classes, but beside those of train {len(usable)} have "
            f"{shape.shots + shape.queries} rows (shots + queries)"
        )
    return train, tuple(usable[-classes.test :])


def _by_class(table: pa.Table, labels: Sequence[str], start: int) -> Pool:
    if not pa.types.is_integer(table["label"].type):
        raise UserError("few_shot needs rows of one class each, as the task classification has them")
    numbers = table["label"].to_numpy()
    found = {label: start + np.flatnonzero(numbers == number) for number, label in enumerate(labels)}
    return {label: rows for label, rows in found.items() if len(rows)}


def _enough(rows: Pool, names: Sequence[str], shape: Episodes, asked: object, left_out: list[str]) -> Pool:
    """The rows of the named classes that have enough of them. Raises `UserError` where that leaves too few."""
    need = shape.shots + shape.queries
    pool = {label: rows[label] for label in names if len(rows.get(label, ())) >= need}
    short = [label for label in names if label not in pool]
    if short and isinstance(asked, tuple):
        raise UserError(
            f"class {short[0]!r} has {len(rows.get(short[0], ()))} rows, an episode takes {need} of each class (shots "
            f"{shape.shots} + queries {shape.queries})"
        )
    if len(pool) < shape.ways:
        raise UserError(
            f"few_shot.episodes.ways is {shape.ways}, but only {len(pool)} of {len(names)} classes have the "
            f"{need} rows that an episode takes of each (shots {shape.shots} + queries {shape.queries})"
        )
    if short:
        left_out.append(f"fewer than {need} rows, left out: {', '.join(short)}")
    return pool


def draw(pool: Pool, shape: Episodes, *key: int | str) -> Drawn:
    """The episode of `key`: `ways` classes in an order of its own, `shots` + `queries` rows of each."""
    names = list(pool)
    chosen = [names[at] for at in permutation(len(names), *key, "classes")[: shape.ways]]
    need = shape.shots + shape.queries
    columns = [pool[label][permutation(len(pool[label]), *key, "rows", label)[:need]] for label in chosen]
    rows = np.stack(columns, axis=1)
    return Drawn(support=rows[: shape.shots], query=rows[shape.shots :])


def draw_for_training(pools: tuple[Pool, ...], shape: Episodes, *key: int | str) -> Drawn:
    """The same, of one of several domains."""
    at = permutation(len(pools), *key, "domain")[0]
    return draw(pools[at], shape, *key)
