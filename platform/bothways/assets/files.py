"""Files that other processes see complete or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bothways.errors import UserError


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Exclusive between processes; the system releases it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """An empty folder for work in progress, gone afterwards. The caller holds the lock, so leftovers are nobody's."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def flush(path: Path) -> None:
    """Onto the disk, so that a rename that follows never uncovers an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def made(directory: Path, option: str) -> Path:
    """A directory, made if it is not there. Raises `UserError`, which names the `option`, where it cannot be used."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{option}: {directory} cannot be written to ({error.strerror}): name another") from None
    return directory


def write_whole(file: Path, text: str, encoding: str = "utf-8") -> None:
    """A text file as it stands, line ends included; a reader, and whoever comes after a crash, finds all of it or what
    was there before."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding, newline="")
        flush(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    flush(file.parent)


def build_once(folder: Path, build: Callable[[Path], None], is_whole: Callable[[Path], bool] = Path.is_dir) -> Path:
    """`folder`, filled by `build` unless it already `is_whole`; one process builds, others wait for it."""
    if is_whole(folder):
        return folder
    with lock(folder.with_name(f".{folder.name}.lock")):
        if is_whole(folder):  # made while this process waited
            return folder
        with fresh_folder(folder.with_name(f".{folder.name}.partial")) as work:
            build(work)
            for path in (*work.rglob("*"), work):
                flush(path)
            shutil.rmtree(folder, ignore_errors=True)  # there only when damaged
            work.rename(folder)
        flush(folder.parent)
    return folder
