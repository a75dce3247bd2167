"""Every record is accepted or rejected with a reason; what is rejected goes to a quarantine file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bothways.assets.files import write_whole
from bothways.data.reading import Broken, Record
from bothways.errors import UserError
from bothways.registry import TASKS
from bothways.task_contract import TaskLike, Unusable

MAX_BYTES = 1_000_000  # of one text: no encoder reads more, and a book in a row is a broken file
_EXCERPT = 80  # characters


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """One unusable record: `line` counted from 1 in `source`, why, and how it begins."""

    source: str
    line: int
    reason: str
    excerpt: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What one source holds. The accepted rows as columns of equal length; `pairs` holds "" for single texts.

    `sources`: of each row, where `source` stands for several; else empty.
    """

    source: str
    texts: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)  # as `TaskLike.read` writes them
    lines: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of several sources, one after another."""
        columns = {name: [each for rows in parts for each in getattr(rows, name)] for name in (*COLUMNS, "rejected")}
        sources = [rows.source for rows in parts for _ in rows.texts]
        return cls(source=" + ".join(rows.source for rows in parts), **columns | {"sources": sources})

    def take(self, at: Sequence[int]) -> Rows:
        """Some of the accepted rows, and all that was rejected."""
        columns: dict[str, Any] = {name: [held[row] for row in at] for name in COLUMNS if (held := getattr(self, name))}
        return replace(self, **columns)

    def place(self, row: int) -> str:
        """`file:line` of an accepted row."""
        return f"{self.sources[row] if self.sources else self.source}:{self.lines[row]}"


COLUMNS = ("texts", "pairs", "labels", "lines", "sources")


def check(
    source: str,
    records: Iterable[Record],
    task: TaskLike | None = None,
    known_classes: Collection[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Rows:
    """Divide records into accepted and rejected ones, as `task` (None: classification) reads them; nothing is lost.

    `known_classes`: any other is a reason. `names`: other names for labels, which count from here on.
    """
    task = task or TASKS.build("classification")
    rows = Rows(source=source)
    for line, values in records:
        if isinstance(values, Broken):
            rows.rejected.append(_rejected(source, line, values.reason, values.excerpt))
            continue
        *texts, cell = values
        try:
            texts, label = task.read(texts, cell)
            label = (names or {}).get(label, label)
            _refuse(texts, label)
            if known_classes is not None and (unknown := [c for c in task.classes(label) if c not in known_classes]):
                raise Unusable(f"unknown label {unknown[0][:_EXCERPT]!r}")
        except Unusable as error:
            rows.rejected.append(_rejected(source, line, str(error), "" if texts[0] is None else str(texts[0])))
            continue
        rows.texts.append(texts[0])
        rows.pairs.append(texts[1] if len(texts) == 2 else "")
        rows.labels.append(label)
        rows.lines.append(line)
    return rows


def _rejected(source: str, line: int, reason: str, text: str) -> Rejected:
    return Rejected(source=source, line=line, reason=reason, excerpt=text[:_EXCERPT])


def _refuse(texts: list[Any], label: str) -> None:
    """Raises `Unusable` for a record that nobody could use."""
    for text in texts:
        if not isinstance(text, str):
            raise Unusable("missing text" if text is None else f"a {type(text).__name__} where text belongs")
        if not text or text.isspace():
            raise Unusable("empty text")
        if reason := unfit(text):
            raise Unusable(reason)
    if not label:
        raise Unusable("missing label")
    if reason := unfit(label):
        raise Unusable(f"{reason} in the label")


def _usable(text: Any) -> bool:
    try:
        _refuse([text], "no label")
    except Unusable:
        return False
    return True


def usable_texts(records: Iterable[Record]) -> list[str]:
    """The texts of records without labels; those that would be no rows are left out."""
    return [values[0] for _, values in records if not isinstance(values, Broken) and _usable(values[0])]


def unfit(text: str) -> str | None:
    """What makes a string unusable anywhere."""
    if "\0" in text:
        return "NUL character"
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        # PEP 383: a byte that is not UTF-8 was read as one of these surrogates; JSON can write the others.
        return "not UTF-8" if "\udc80" <= text[error.start] <= "\udcff" else "lone surrogate"
    return f"text over 1 MB ({size:,} bytes)" if size > MAX_BYTES else None


def quarantine(parts: Iterable[Rows], folder: Path) -> Path | None:
    """Write every rejected record to `folder/quarantine.jsonl`; None (and no file) when there is none."""
    file = folder / "quarantine.jsonl"
    rejected = [item for rows in parts for item in rows.rejected]
    if not rejected:
        file.unlink(missing_ok=True)
        return None
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(json.dumps(asdict(item)) + "\n" for item in rejected))
    return file


def refuse_too_many(rows: Rows, max_bad_rows: int | float, file: Path | None) -> None:
    """Raises `UserError` when a source has no row, or more rejected ones than `max_bad_rows` (a count or a share)."""
    bad, total = len(rows.rejected), len(rows.rejected) + len(rows.texts)
    if total == 0:
        raise UserError(f"{rows.source}: no rows at all")
    if bad > (max_bad_rows if max_bad_rows >= 1 else max_bad_rows * total):
        first = rows.rejected[0]
        raise UserError(
            f"{first.source}:{first.line}: {first.reason}; {bad} of {total} rows are unusable, more than "
            f"data.max_bad_rows {max_bad_rows}: mend them{f' (listed in {file})' if file else ''} or raise the limit"
        )


def describe_rejected(rows: Rows, file: Path | None) -> str | None:
    """One line on what was rejected, by reason; None when nothing was."""
    if not rows.rejected:
        return None
    reasons = Counter(item.reason.split(" (")[0] for item in rows.rejected).most_common()
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons[:5])
    where = f"; listed in {file}" if file else ""
    return f"{rows.source}: {len(rows.rejected)} rows rejected ({listed}), {len(rows.texts)} accepted{where}"
