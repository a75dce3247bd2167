"""Texts that occur twice: within a split they weigh double, across splits they leak the answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from bothways.data.checking import Rows

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
_NOT_ALPHANUMERIC_ASCII = bytes(byte for byte in range(128) if not chr(byte).isalnum())
_SHOWN = 2  # examples


@dataclass(kw_only=True)
class Duplicates:
    """What equals something else after NFC and strip, pair included, in parts ordered from train to test.

    `drop`: (part, row) of every row that goes: those also found in a later part, those that repeat a row, and, where a
    text has one label only, all rows of a text that one part labels differently. The counts are rows; the examples,
    texts.
    """

    drop: set[tuple[int, int]] = field(default_factory=set)
    leaking: int = 0
    repeated: int = 0
    contradicting: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = (
            ("repeat another row", self.repeated),
            ("have a text of a later split", self.leaking),
            ("have contradicting labels", self.contradicting),
        )
        counted = ", ".join(f"{what}: {count:,}" for what, count in kinds if count)
        return f"{counted}; such as {'; '.join(self.examples)}"


def find(parts: Sequence[Rows], *, exclusive: bool = True) -> Duplicates:
    """Exact duplicates within and across `parts`. What is kept does not depend on the order of rows.

    `exclusive`: two labels of one text contradict each other; else both rows stay.
    """
    first: dict[str, tuple[int, int]] = {}
    groups: dict[str, list[tuple[int, int]]] = {}
    for part, rows in enumerate(parts):
        for row, (text, pair) in enumerate(zip(rows.texts, rows.pairs, strict=True)):
            key = f"{_canonical(text)}\0{_canonical(pair)}"
            seen = first.setdefault(key, (part, row))
            if seen != (part, row):
                groups.setdefault(key, [seen]).append((part, row))
    found = Duplicates()
    for group in groups.values():
        last = max(part for part, _ in group)  # evaluation rows stay, whatever train holds
        own = [member for member in group if member[0] == last]
        earlier = [member for member in group if member[0] != last]
        found.leaking += len(earlier)
        found.drop.update(earlier)
        by_label: dict[str, list[tuple[int, int]]] = {}
        for member in own:
            by_label.setdefault(parts[last].labels[member[1]], []).append(member)
        if exclusive and len(by_label) > 1:
            found.contradicting += len(own)
            found.drop.update(own)
        else:
            for alike in by_label.values():
                kept = min(alike, key=lambda member: (parts[last].texts[member[1]], parts[last].pairs[member[1]]))
                found.repeated += len(alike) - 1
                found.drop.update(member for member in alike if member != kept)
        if not found.drop.intersection(group):
            continue
        if len(found.examples) < _SHOWN:
            found.examples.append(_place(parts, group))
    return found


def _canonical(text: str) -> str:
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()


def _place(parts: Sequence[Rows], group: list[tuple[int, int]]) -> str:
    """`'an excerpt' (a.csv:2, a.csv:7)`"""
    (part, row), where = group[0], [parts[part].place(row) for part, row in group[:_SHOWN]]
    return f"{parts[part].texts[row].strip()[:60]!r} ({', '.join(where)})"


def alike(text: str, pair: str = "") -> bytes:
    """Equal for texts (and pairs) that differ at most in case, spaces and punctuation."""
    key = _letters(text) + b"\0" + _letters(pair)
    return f"{_canonical(text)}\0{_canonical(pair)}".encode() if key == b"\0" else key


def _letters(text: str) -> bytes:
    """Letters and digits in lower case; the plain-English way is 10 times faster."""
    if text.isascii():
        return text.lower().encode().translate(None, _NOT_ALPHANUMERIC_ASCII)
    return _NOT_ALPHANUMERIC.sub("", text.lower()).encode()


def near(splits: Sequence[tuple[Sequence[str], Sequence[str]]]) -> tuple[int, list[str]]:
    """How many rows of later splits differ from a row of an earlier one only in case, spaces and punctuation.

    `splits`: (texts, pairs) of each, train first. Returns the count and a few of the texts.
    """
    seen: set[bytes] = set()
    count = 0
    examples: list[str] = []
    for texts, pairs in splits:
        own = set()
        for text, pair in zip(texts, pairs, strict=True):
            key = _letters(text) + b"\0" + _letters(pair)
            if key == b"\0":
                continue
            if key in seen:
                count += 1
                if len(examples) < _SHOWN:
                    examples.append(repr(text.strip()[:60]))
            own.add(key)
        seen |= own
    return count, examples
