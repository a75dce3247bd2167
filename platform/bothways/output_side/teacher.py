"""What names a teacher, a saved model: its directory and what was in it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from bothways.assets.files import sha256
from bothways.errors import UserError


def content(directory: str) -> str:
    """16 hex digits over all that a saved or exported model consists of; read again only when a file has changed.

    Raises `UserError` when there is no such model.
    """
    folder = Path(directory).expanduser()
    files = sorted(file for kind in ("*.json", "*.safetensors") for file in folder.glob(kind))
    if not any(file.name == "model.json" for file in files):
        raise UserError(f"teacher {directory} is not a saved model: it has no model.json")
    return _digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    lines = "".join(f"{file.name} {sha256(file)}\n" for file, *_ in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
