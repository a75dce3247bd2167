"""Checkpoints that survive a crash at any instant: written aside, synced, checksummed, then renamed into place.

    <directory>/step-00000040/state.pt       tensors and plain values, read with torch's weights-only unpickler
    <directory>/step-00000040/manifest.json  size and SHA-256 of every file, written last

The newest `KEEP` stay. Loading takes the newest that is whole, and says which ones it passed over and why.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bothways.assets.files import flush
from bothways.errors import UserError, one_line

KEEP = 2
_STATE = "state.pt"
_MANIFEST = "manifest.json"
_MARGIN = 1.1
"""Free space asked for, as a multiple of the bytes to write."""

State = Mapping[str, Any]
"""Tensors, numbers, strings, and lists and dicts of them."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """`state`: of the newest whole checkpoint, or None. `notes`: one line for each newer one that could not be used."""

    state: State | None
    notes: tuple[str, ...] = field(default=())


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A directory to fill. It becomes `target`, replacing what was there, when the block ends well; else it goes.

    Files are synced to disk before the rename, the parent directory after it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    aside.mkdir()
    try:
        yield aside
        for file in [*aside.rglob("*"), aside]:
            flush(file)
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
        flush(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def need_space(directory: Path, needed: int) -> None:
    """Raises `UserError` with path, free and needed bytes when the disk has no room for `needed` bytes."""
    free = shutil.disk_usage(directory).free
    if free < needed * _MARGIN:
        raise UserError(f"no space in {directory}: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free")


def size_of(state: Any) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(size_of(value) for value in state.values())
    return sum(size_of(value) for value in state) if isinstance(state, list | tuple) else 0


def save(directory: Path, step: int, state: State) -> Path:
    """Write a checkpoint and drop all but the newest `KEEP`. Raises `UserError` when the disk is full."""
    directory.mkdir(parents=True, exist_ok=True)
    need_space(directory, size_of(state))
    target = directory / f"step-{step:08d}"
    for leftover in directory.glob(".step-*"):  # of a writer that was killed
        shutil.rmtree(leftover)
    try:
        with atomic_directory(target) as aside:
            torch.save(dict(state), aside / _STATE)
            manifest = {_STATE: {"bytes": (aside / _STATE).stat().st_size, "sha256": _sha256(aside / _STATE)}}
            (aside / _MANIFEST).write_text(json.dumps(manifest), "utf-8")
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        need_space(directory, size_of(state))
        raise UserError(f"cannot write {target}: {one_line(error)}") from error
    for old in _newest_first(directory)[KEEP:]:
        shutil.rmtree(old)
    return target


def load(directory: Path) -> Loaded:
    """The newest whole checkpoint. Nothing in a checkpoint is ever executed."""
    notes: list[str] = []
    for candidate in _newest_first(directory):
        try:
            return Loaded(state=_read(candidate), notes=tuple(notes))
        except Exception as error:  # whatever a damaged file makes the reader raise
            notes.append(f"checkpoint {candidate.name} cannot be used ({one_line(error)}); fell back")
    return Loaded(state=None, notes=tuple(notes))


def _read(checkpoint: Path) -> State:
    manifest = json.loads((checkpoint / _MANIFEST).read_text("utf-8"))
    if _sha256(checkpoint / _STATE) != manifest[_STATE]["sha256"]:
        raise ValueError(f"{_STATE} is not what its manifest says")
    state: State = torch.load(checkpoint / _STATE, map_location="cpu", weights_only=True)
    return state


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
