"""What language models have written, remembered by content: a sweep pays once for what its epochs and trials share."""

from __future__ import annotations

import json
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from bothways.assets import root

MOST = 100_000
"""Results that a process holds of one model; those used longest ago go first."""
LARGEST = 1 << 30
"""Bytes of results of one model on the disk, after which no more are written. The folder may be removed at any time."""


class Written(NamedTuple):
    """`ended`: whether the model came to an end by itself. A text that could not be read has been left unwritten."""

    text: str
    ended: bool


class Results:
    """Name → what was written. Every process appends to a file of its own, a line a result, and reads those of all
    others: no lock, and whoever dies leaves at most half a line, which nobody reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{uuid.uuid4().hex}.jsonl"
        self._read: dict[str, int] = {}
        self._known: OrderedDict[str, Written] = OrderedDict()

    def get(self, names: Iterable[str]) -> dict[str, Written]:
        """Those of `names` that are known."""
        wanted = set(names)
        if not wanted <= self._known.keys():
            with suppress(OSError):
                self._refresh()
        found = wanted & self._known.keys()
        for name in found:
            self._known.move_to_end(name)
        return {name: self._known[name] for name in found}

    def put(self, results: Mapping[str, Written]) -> None:
        """On the disk too, where there is room; a disk that cannot be written to costs time, not results."""
        self._keep(results)
        if sum(self._read.values()) > LARGEST:
            return
        lines = "".join(f"{json.dumps([name, *written], ensure_ascii=False)}\n" for name, written in results.items())
        with suppress(OSError, UnicodeEncodeError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._own.open("ab") as file:
                file.write(lines.encode())

    def _keep(self, results: Mapping[str, Written]) -> None:
        self._known.update(results)
        while len(self._known) > MOST:
            self._known.popitem(last=False)

    def _refresh(self) -> None:
        for entry in os.scandir(self._folder):
            start = self._read.get(entry.name, 0)
            if entry.stat().st_size <= start:
                continue
            with Path(entry.path).open("rb") as file:
                file.seek(start)
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._read[entry.name] = start + whole
            found = (json.loads(line) for line in data[:whole].split(b"\n") if line)
            self._keep({name: Written(text, ended) for name, text, ended in found})


def results(model: str) -> Results:
    """Those of the model with this fingerprint."""
    return _results(root() / "generated" / model)


@lru_cache(maxsize=8)
def _results(folder: Path) -> Results:
    return Results(folder)
