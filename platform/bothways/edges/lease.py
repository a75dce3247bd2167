"""Whose directory is it? A sweep's own folder, numbered, and owned by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bothways.errors import ConflictError, UserError


@contextlib.contextmanager
def lease(directory: Path) -> Iterator[None]:
    """Sole ownership of a sweep's directory while this process lives (the lock dies with it).

    Raises `ConflictError` naming the holder when another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lease").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConflictError(f"sweep {directory.name} is running already: {file.read().strip()}") from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def sweep_directory(storage: Path, name: str, *, resume: bool) -> Path:
    """`<storage>/<name>-NNN`: the last one to resume, else the next free number."""
    taken = sorted(storage.glob(f"{name}-[0-9][0-9][0-9]"))
    if resume:
        if not taken:
            raise UserError(f"there is no sweep of {name} in {storage} to resume: run it without --resume")
        return taken[-1]
    return storage / f"{name}-{int(taken[-1].name[-3:]) + 1 if taken else 1:03d}"


def identity(directory: Path, kept: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The random identity of the sweep that has this directory, beside all that must not change when it is resumed.

    `inputs`: files written down when it begins. Raises `UserError` when it was begun with something else.
    """
    file = directory / "sweep.json"
    if not file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"id": uuid.uuid4().hex, **kept}, indent=1), encoding="utf-8")
        for name, text in inputs.items():
            (directory / name).write_text(text, encoding="utf-8")
    then = json.loads(file.read_text(encoding="utf-8"))
    if changed := [key for key, value in kept.items() if then[key] != value]:
        raise UserError(f"{directory.name} was begun with another {' and '.join(changed)}: run without --resume")
    return str(then["id"])
