"""Whose directory is it? A sweep's own folder, numbered, and owned by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

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
