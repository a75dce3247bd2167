"""What a model is, whatever its folder is called: a digest of its files."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from bothways.assets.files import sha256

_SUFFIXES = {".json", ".safetensors", ".txt", ".model", ".spm", ".jinja"}
_State = tuple[tuple[str, int, int], ...]


def fingerprint(folder: Path) -> str:
    """16 hex digits over weights, config and tokenizer; read again only when one of the files has changed."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    about = [(path.name, path.stat()) for path in files]
    return _digest(folder, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in about))


@lru_cache(maxsize=32)
def _digest(folder: Path, state: _State) -> str:
    read = "".join(f"{name} {sha256(folder / name)}\n" for name, _, _ in state)
    return hashlib.sha256(read.encode()).hexdigest()[:16]
