"""Labelled text from a config: read, checked, freed of duplicates, divided."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bothways import config
from bothways.config.domains import source_name
from bothways.data.checking import Rows, check, describe_rejected, quarantine, refuse_too_many, usable_texts
from bothways.data.domains import MAX_LABELS, auxiliary_rows, clean_rows, mixed_rows, target_text
from bothways.data.duplicates import find, near
from bothways.data.feedback import feedback_rows
from bothways.data.instructions import instructions
from bothways.data.reading import Columns
from bothways.data.sources import parts
from bothways.data.splitting import Int64, draw, row_ids
from bothways.errors import UserError
from bothways.registry import TASKS
from bothways.seeding import keys
from bothways.task_contract import TaskLike

ROLES = ("train", "selection", "test")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three splits without a row in common, in an order that depends on their contents and `split_seed` only.

    `train`, `selection`, `test`: columns id int64 (63 bits, from the content), text string, pair string (null for
    single texts), label (what `TaskLike.column` makes of it; class numbers are positions in `labels`).
    `unlabelled`: the same columns, without labels, of the same domain and never those of a test row: rows of the source
    of `train` that no split uses, and what the source has without labels; or those of `data.unlabelled_source`.
    `mixed`: the rows of each source of `data.mix`. `clean`: those of `data.clean_source`. `feedback`: those of
    `data.feedback`, as each of `contracts.FEEDBACK_PARTS`. `auxiliary`: those of each of `data.tasks`, their classes
    numbered through; it has so many (`auxiliary_classes`). `digest`: SHA-256 over all rows of these.
    `notes`: a line for whatever was rejected, dropped or looks odd.
    """

    train: pa.Table
    selection: pa.Table
    test: pa.Table
    labels: tuple[str, ...]
    digest: str
    notes: tuple[str, ...]
    unlabelled: pa.Table = field(default_factory=lambda: _texts([], paired=False))
    mixed: tuple[pa.Table, ...] = ()
    feedback: tuple[pa.Table, ...] = ()
    clean: pa.Table | None = None
    auxiliary: tuple[pa.Table, ...] = ()
    auxiliary_classes: tuple[int, ...] = ()

    def rows(self, split: str) -> pa.Table:
        """The rows of a split, of `unlabelled` or `clean`, or of all tables of `mixed`, `auxiliary` or `feedback` one
        after another."""
        several = {
            "mixed": self.mixed,
            "auxiliary": self.auxiliary,
            "clean": () if self.clean is None else (self.clean,),
            "feedback": self.feedback,
        }
        if split in several:
            return pa.concat_tables([self.train.slice(0, 0), *several[split]])
        return getattr(self, split)


def load(data: config.Data, quarantine_dir: Path | None = None, task: TaskLike | None = None) -> Dataset:
    """The dataset a config describes, for `task` (None: classification). Unusable rows are listed in
    `quarantine_dir/quarantine.jsonl`.

    Raises `UserError`: a source, column or label that is not there, too many unusable rows, duplicates under
    `dedup: error`, splits larger than their source, fewer classes than the task needs.
    """
    task = task or TASKS.build("classification")
    found, without_label = _read(data, task)
    file = quarantine(found.values(), quarantine_dir) if quarantine_dir else None
    for rows in found.values():
        refuse_too_many(rows, data.max_bad_rows, file)
    notes = [note for rows in found.values() if (note := describe_rejected(rows, file))]
    found, duplicates = _without_duplicates(found, data.dedup, exclusive=task.exclusive)
    labels = _labels(found["train"], data, task, duplicates)
    columns = {part: task.column(rows.labels, labels) for part, rows in found.items()}
    ids = {role: row_ids(zip(rows.texts, rows.pairs, rows.labels, strict=True)) for role, rows in found.items()}
    chosen, unused = _divide(data, found, ids, columns)
    tables = {
        role: _table(found[part], ids[part][rows], rows, columns[part], data.pair is not None)
        for role, (part, rows) in chosen.items()
    }
    unlabelled = _unlabelled(found["train"], chosen, tables["test"], without_label)
    if data.unlabelled_source is not None:
        unlabelled, of_target = target_text(data, tables)
        notes += of_target
    mixed, of_mixed = mixed_rows(data, tables, labels) if data.mix else ((), [])
    judged, of_feedback = feedback_rows(data, tables, task, labels) if data.feedback else ((), [])
    clean, of_clean = clean_rows(data, tables, labels, task) if data.clean_source is not None else (None, [])
    auxiliary, auxiliary_classes, of_tasks = auxiliary_rows(data, tables) if data.tasks else ((), (), [])
    others = {f"mixed {number}": table for number, table in enumerate(mixed)}
    others |= {"clean": clean} if clean is not None else {}
    others |= {f"task {number}": table for number, table in enumerate(auxiliary)}
    others |= {f"feedback {number}": table for number, table in enumerate(judged)}
    whole = Dataset(
        **{role: tables[role] for role in ROLES},
        unlabelled=unlabelled,
        mixed=mixed,
        feedback=judged,
        clean=clean,
        auxiliary=auxiliary,
        auxiliary_classes=auxiliary_classes,
        labels=labels,
        digest=_digest(tables, unlabelled, labels, others),
        notes=(
            *(*notes, *of_mixed, *of_clean, *of_tasks, *of_feedback),
            *(*duplicates, *unused, *_oddities(tables, labels)),
        ),
    )
    return folded(whole, data.fold, data.split_seed) if data.fold else whole


def folded(dataset: Dataset, fold: config.Fold, split_seed: int) -> Dataset:
    """The dataset with one fold of its training and selection rows as selection and the others as train.

    Each class has its share in every part, to the row. Raises `UserError` when there are fewer rows than parts.
    """
    rows = pa.concat_tables([dataset.train, dataset.selection]).combine_chunks()
    if rows.num_rows < fold.of:
        raise UserError(f"{rows.num_rows} training and selection rows cannot be divided into {fold.of} folds")
    row_keys = keys("fold", split_seed, fold.repeat, rows["id"].to_numpy())
    sizes = [rows.num_rows // fold.of + (part < rows.num_rows % fold.of) for part in range(fold.of)]
    drawn = draw(_strata(rows["label"]), row_keys, sizes)
    selection = drawn.pop(fold.number)
    train = np.concatenate(drawn)
    identity = f"{dataset.digest} fold {fold.number} of {fold.of}, {fold.repeat} of seed {split_seed}"
    return replace(
        dataset,
        train=rows.take(pa.array(train[np.argsort(row_keys[train], kind="stable")])),
        selection=rows.take(pa.array(selection)),
        digest=hashlib.sha256(identity.encode()).hexdigest(),
    )


def _strata(column: pa.Array | pa.ChunkedArray) -> Int64:
    """What a split has its share of: classes where a row has one, else all rows alike, (N,)."""
    return column.to_numpy() if pa.types.is_integer(column.type) else np.zeros(len(column), np.int64)


def _read(data: config.Data, task: TaskLike) -> tuple[dict[str, Rows], list[str]]:
    """The rows of each source by the split they are for, and the texts it has without labels; `train` also feeds the
    splits without a source."""
    columns = Columns(data.text, data.pair, data.label)
    named = {"selection": data.selection_source, "test": data.test_source}
    names = data.label_names
    if isinstance(data.source, str):
        own = parts(data.source, columns)
        found = {"train": check(data.source, own["train"], task, names=names)}
    else:
        own, asked = {}, instructions(data.source, data.split_seed)
        found = {"train": Rows.joined([check(source, records, task, names=names) for source, records in asked])}
    known = {each for label in set(found["train"].labels) for each in task.classes(label)}
    for role in ROLES[1:]:
        if (source := named[role]) is not None:
            other = parts(source, columns)
            found[role] = check(source, other.get(role, other["train"]), task, known, names)
        elif role in own:
            found[role] = check(f"{source_name(data.source)} ({role})", own[role], task, known, names)
    return found, usable_texts(own.get("unlabelled", ()))


def _without_duplicates(found: Mapping[str, Rows], dedup: str, *, exclusive: bool) -> tuple[dict[str, Rows], list[str]]:
    """The rows that stay, and a note on the others."""
    duplicates = find(list(found.values()), exclusive=exclusive)
    if not duplicates.drop:
        return dict(found), []
    if dedup == "keep":
        return dict(found), [f"kept duplicates (rows that {duplicates})"]
    if dedup == "error":
        raise UserError(f"duplicates (rows that {duplicates}); remove them, or set data.dedup to drop or keep")
    kept = {
        role: rows.take([row for row in range(len(rows.texts)) if (part, row) not in duplicates.drop])
        for part, (role, rows) in enumerate(found.items())
    }
    return kept, [f"dropped duplicates (rows that {duplicates})"]


def _labels(rows: Rows, data: config.Data, task: TaskLike, duplicates: list[str]) -> tuple[str, ...]:
    if not rows.texts:
        raise UserError(f"{rows.source}: no row is left: {'; '.join(duplicates) or 'none could be used'}")
    labels = sorted({each for label in set(rows.labels) for each in task.classes(label)})
    if len(labels) < task.fewest_classes:
        held = f"one label, {labels[0]!r}," if labels else "no label"
        raise UserError(
            f"{rows.source}: {held} in {len(rows.texts)} usable rows; at least {task.fewest_classes} labels are needed"
        )
    if len(labels) > MAX_LABELS:
        shown = ", ".join(repr(label[:20]) for label in labels[:3])
        raise UserError(
            f"{rows.source}: column {data.label!r} has {len(labels):,} different labels ({shown}, …); "
            f"at most {MAX_LABELS:,} are taken for classes: is data.label the right column?"
        )
    return tuple(labels)


def _divide(
    data: config.Data, found: Mapping[str, Rows], ids: Mapping[str, Int64], columns: Mapping[str, pa.Array]
) -> tuple[dict[str, tuple[str, Int64]], list[str]]:
    """For each split, the source it comes from and its row numbers there; and notes on rows that no split uses."""
    chosen: dict[str, tuple[str, Int64]] = {}
    notes = []
    for part, rows in found.items():
        shared = part == "train"
        roles = [role for role in reversed(ROLES) if role not in found or role == "train"] if shared else [part]
        sizes = _sizes(data.splits, roles, len(rows.texts), rows.source, shared)
        draws = draw(_strata(columns[part]), keys("split", data.split_seed, ids[part]), sizes)
        chosen |= {role: (part, rows_of) for role, rows_of in zip(roles, draws, strict=True)}
        if unused := len(rows.texts) - sum(sizes):
            drawn = ", ".join(f"{size:,} {role}" for role, size in zip(roles, sizes, strict=True))
            notes.append(f"{rows.source}: {drawn} of {len(rows.texts):,} rows; {unused:,} unused")
    return chosen, notes


def _sizes(splits: config.Splits, roles: list[str], n: int, source: str, shared: bool) -> list[int]:
    """Rows of each role out of `n`; train, when it is null, gets what the others leave."""
    asked = {role: getattr(splits, role) for role in roles}
    sizes = {
        role: size if isinstance(size, int) else round(size * n) if shared else n
        for role, size in asked.items()
        if size is not None
    }
    for role in set(roles) - set(sizes):
        sizes[role] = max(n - sum(sizes.values()), 1)
    if sum(sizes.values()) > n or min(sizes.values()) < 1:
        parts_ = " + ".join(f"{role} {sizes[role]:,}" for role in ROLES if role in sizes)
        raise UserError(f"{source} has {n:,} usable rows, but data.splits asks for {parts_}: give each what there is")
    return [sizes[role] for role in roles]


def _table(rows: Rows, ids: Int64, at: Int64, labels: pa.Array, paired: bool) -> pa.Table:
    columns = {
        "id": pa.array(ids, pa.int64()),
        "text": pa.array([rows.texts[row] for row in at], pa.string()),
        "pair": pa.array([rows.pairs[row] if paired else None for row in at], pa.string()),
        "label": labels.take(pa.array(at)),
    }
    return pa.table(columns)


def _unlabelled(
    rows: Rows, chosen: Mapping[str, tuple[str, Int64]], test: pa.Table, without_label: list[str]
) -> pa.Table:
    """The rows that no split uses, in the order of their texts, and then `without_label`; no text of a test row."""
    taken = {int(row) for part, at in chosen.values() if part == "train" for row in at}
    paired = test["pair"].null_count < test.num_rows
    tested = set(test["text"].to_pylist())
    left = sorted((rows.texts[row], rows.pairs[row]) for row in range(len(rows.texts)) if row not in taken)
    kept = [pair for pair in (*left, *((text, "") for text in without_label)) if pair[0] not in tested]
    return _texts(kept, paired=paired)


def _texts(rows: list[tuple[str, str]], *, paired: bool) -> pa.Table:
    columns = {
        "id": pa.array(row_ids((text, pair, "") for text, pair in rows), pa.int64()),
        "text": pa.array([text for text, _ in rows], pa.string()),
        "pair": pa.array([pair if paired else None for _, pair in rows], pa.string()),
        "label": pa.nulls(len(rows), pa.int64()),
    }
    return pa.table(columns)


def _digest(
    tables: Mapping[str, pa.Table],
    unlabelled: pa.Table,
    labels: tuple[str, ...],
    others: Mapping[str, pa.Table],
) -> str:
    """No field holds a NUL, so NULs separate fields and rows without ambiguity."""
    digest = hashlib.sha256("\0".join(labels).encode())
    for role in ROLES:
        digest.update(f"\0\0{role}".encode())
        for row in _rows(tables[role]):
            digest.update("\0".join(map(str, row)).encode() + b"\0\0")
    for text, pair in zip(*(unlabelled[name].to_pylist() for name in ("text", "pair")), strict=True):
        digest.update(f"{text}\0{pair or ''}\0\0".encode())
    for name, table in others.items():
        digest.update(f"\0\0{name}".encode())
        for row in _rows(table):
            digest.update("\0".join(map(str, row)).encode() + b"\0\0")
    return digest.hexdigest()


def _rows(table: pa.Table) -> Iterator[tuple[int, str, str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        for number, text, pair, label in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield number, text, pair or "", label


def _classes_in(column: pa.ChunkedArray) -> set[int]:
    """The class numbers that occur: one a row, or a 1 for each in a list of all classes, or one a place in the text."""
    if pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
        return set(np.flatnonzero(np.array(column.to_pylist()).any(axis=0)).tolist())
    if pa.types.is_list(column.type):
        column = pc.struct_field(pc.list_flatten(column), "label")
    return set(pc.unique(column).to_pylist())


def _oddities(tables: Mapping[str, pa.Table], labels: tuple[str, ...]) -> Iterator[str]:
    for role, table in tables.items() if labels else ():
        present = _classes_in(table["label"])
        if absent := [label for number, label in enumerate(labels) if number not in present]:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            yield f"{role} has no row labelled {', '.join(absent[:5])}{more}"
    texts = {role: [(text, pair) for _, text, pair, _ in _rows(tables[role])] for role in ROLES}
    count, examples = near([([t for t, _ in rows], [p for _, p in rows]) for rows in texts.values()])
    if count:
        yield (
            "rows that differ from one of an earlier split only in case, spaces or punctuation: "
            f"{count:,}; such as {'; '.join(examples)}"
        )
