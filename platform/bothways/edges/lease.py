"""Whose directory is it? A sweep's own folder, numbered, and owned by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bothways.assets.files import made, write_whole
from bothways.errors import ConflictError, UserError


@contextlib.contextmanager
def lease(directory: Path) -> Iterator[None]:
    """Sole ownership of a sweep's directory while this process lives (the lock dies with it).

    Raises `ConflictError` naming the holder when another process has it.
    """
    made(directory, "run.storage")
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


def begun(storage: Path, name: str) -> list[int]:
    """The numbers of the sweeps of a name, in their order."""
    found = (re.fullmatch(rf"{re.escape(name)}-([0-9]{{3,}})", path.name) for path in storage.glob(f"{name}-*"))
    return sorted(int(number[1]) for number in found if number)


def sweep_directory(storage: Path, name: str, *, resume: bool) -> Path:
    """`<storage>/<name>-NNN`: the last one to resume, else the next free number. Raises `UserError`."""
    numbers = begun(made(storage, "run.storage"), name)
    if resume and not numbers:
        raise UserError(f"there is no sweep of {name} in {storage} to resume: run it without --resume")
    return storage / f"{name}-{(numbers or [0])[-1] + (not resume):03d}"


def identity(directory: Path, kept: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The random identity of the sweep that has this directory, beside all that must not change when it is resumed.

    `inputs`: files written down when it begins. Raises `UserError` when it was begun with something else.
    """
    file = directory / "sweep.json"
    if not file.exists():
        made(directory, "run.storage")
        for name, text in inputs.items():
            write_whole(directory / name, text)
        write_whole(file, json.dumps({"id": uuid.uuid4().hex, **kept}, indent=1))  # last: it says that all is there
    then = json.loads(file.read_text(encoding="utf-8"))
    if changed := [key for key, value in kept.items() if then[key] != value]:
        raise UserError(f"{directory.name} was begun with another {' and '.join(changed)}: run without --resume")
    return str(then["id"])
