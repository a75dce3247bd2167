"""Rows of feedback: a text, an answer, what was said of it, and a better answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bothways import config
from bothways.assets import resolve
from bothways.data.checking import Rows, check, describe_rejected, refuse_too_many
from bothways.data.reading import Broken, Columns, Record, records
from bothways.data.splitting import row_ids
from bothways.errors import UserError
from bothways.task_contract import TaskLike


def feedback_rows(
    data: config.Data, splits: Mapping[str, pa.Table], task: TaskLike, labels: tuple[str, ...]
) -> tuple[tuple[pa.Table, ...], list[str]]:
    """The rows of `data.feedback` as each of `contracts.FEEDBACK_PARTS`, tables of as many rows in the same order, and
    notes. Columns as those of `Dataset.train`.

    Raises `UserError` for a source that is no file, too many unusable rows, and where no row is left.
    """
    asked = data.feedback
    assert asked is not None
    if data.pair is not None:
        raise UserError("data.feedback is of single texts: leave data.pair out")
    if asked.source.startswith(("asset:", "hf:")):
        raise UserError(f"data.feedback.source {asked.source}: give the path of a csv, tsv, jsonl or parquet file")
    more = (asked.rejected,) if asked.feedback is None else (asked.rejected, asked.feedback)
    found = list(records(resolve(asked.source), Columns(asked.text, None, asked.chosen, more)))
    found = _chosen(found)
    # A row's answers are read as labels are, each with its text: both have to be usable.
    known = labels or None
    better, worse = (check(asked.source, _as_labels(found, at), task, known) for at in (1, 2))
    refuse_too_many(better, data.max_bad_rows, None)
    refuse_too_many(worse, data.max_bad_rows, None)
    said = {line: _said(values) for line, values in found if not isinstance(values, Broken)}
    hidden = {text for split in ("selection", "test") for text in splits[split]["text"].to_pylist()}
    rows = _aligned(better, worse, hidden)
    if not rows:
        raise UserError(f"data.feedback.source {asked.source} has no row whose text is not a selection or test row")
    texts = [text for _, text, _, _ in rows]
    told = ["\n".join(filter(None, (said[line], wrong, text))) for line, text, _, wrong in rows]
    good, bad = [right for _, _, right, _ in rows], [wrong for _, _, _, wrong in rows]
    parts = ((texts, good), (texts, bad), (told, good))
    tables = tuple(_table(read, answers, task, labels) for read, answers in parts)
    notes = [note for note in (describe_rejected(better, None), describe_rejected(worse, None)) if note]
    if left := len(set(better.lines) & set(worse.lines)) - len(rows):
        notes.append(f"{asked.source}: left out {left:,} rows whose text is a selection or test row")
    return tables, notes


def _as_labels(found: Sequence[Record], at: int) -> list[Record]:
    """Each record's text with its value at `at` as the label."""
    return [(line, values if isinstance(values, Broken) else [values[0], values[at]]) for line, values in found]


def _said(values: Sequence[Any]) -> str:
    return str(values[3]).strip() if len(values) > 3 and values[3] is not None else ""


def _aligned(better: Rows, worse: Rows, hidden: set[str]) -> list[tuple[int, str, str, str]]:
    """(line, text, better answer, worse answer) of the rows that both have, in the order of the file."""
    wrong = dict(zip(worse.lines, worse.labels, strict=True))
    return [
        (line, text, right, wrong[line])
        for line, text, right in zip(better.lines, better.texts, better.labels, strict=True)
        if line in wrong and text not in hidden
    ]


def _table(texts: Sequence[str], answers: Sequence[str], task: TaskLike, labels: tuple[str, ...]) -> pa.Table:
    columns = {
        "id": pa.array(row_ids((text, "", answer) for text, answer in zip(texts, answers, strict=True)), pa.int64()),
        "text": pa.array(texts, pa.string()),
        "pair": pa.nulls(len(texts), pa.string()),
        "label": task.column(answers, labels),
    }
    return pa.table(columns)


def _chosen(found: Sequence[Record]) -> list[Record]:
    """The records with one revision each: of a list, the one that follows best what was said of the answer.

    The closeness of a revision to the feedback stands for that, as in Scheurer et al. 2023, section 3.1; theirs is a
    cosine of embeddings, ours of tf-idf of character n-grams, which takes no model and reads Chinese as well.
    """
    several = [
        (number, values)
        for number, (_, values) in enumerate(found)
        if not isinstance(values, Broken) and isinstance(values[1], list)
    ]
    if not several:
        return list(found)
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import, and few sources ask for it

    chosen = list(found)
    texts = [str(text) for _, values in several for text in (_said(values), *values[1])]
    of_texts = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)).fit_transform(texts)
    at = 0
    for number, values in several:
        count = len(values[1])
        closeness = (of_texts[at + 1 : at + 1 + count] @ of_texts[at].T).toarray().ravel()
        best = values[1][int(np.argmax(closeness))] if count else None
        chosen[number] = (found[number][0], [values[0], best, *values[2:]])
        at += 1 + count
    return chosen
