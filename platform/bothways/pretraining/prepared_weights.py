"""Weights that were prepared, on disk under what they follow from: made once on a machine, whoever asks.

Those used last stay, up to `KEPT_BYTES`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
from torch import Tensor

from bothways import assets
from bothways.assets.files import build_once, sha256
from bothways.errors import UserError
from bothways.pretraining import Record
from bothways.training.checkpoints import need_space, size_of

KEPT_BYTES = 8 << 30
_WEIGHTS, _ABOUT = "weights.safetensors", "about.json"

Weights = Mapping[str, Tensor]


def kept(key: str, make: Callable[[], tuple[Weights, Record]]) -> tuple[Weights, Record]:
    """What is on disk under `key`, made before if it is not there or no longer whole."""
    root = assets.root() / "prepared"
    folder = root / key
    for _ in range(3):
        build_once(folder, functools.partial(_write, make), _is_whole)
        try:
            folder.touch()
            about = json.loads((folder / _ABOUT).read_text("utf-8"))
            data = (folder / _WEIGHTS).read_bytes()
        except FileNotFoundError:  # another process needed the room between these two lines
            continue
        _make_room(root, folder)
        about.pop("sha256")
        return safetensors.torch.load(data), Record(**about)
    raise UserError(f"{root}: what is prepared there is removed at once by others: give it more room")


def _write(make: Callable[[], tuple[Weights, Record]], folder: Path) -> None:
    weights, record = make()
    need_space(folder, size_of(weights))
    safetensors.torch.save_file(dict(weights), folder / _WEIGHTS)
    about = {**asdict(record), "sha256": sha256(folder / _WEIGHTS)}
    (folder / _ABOUT).write_text(json.dumps(about), "utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        about = json.loads((folder / _ABOUT).read_text("utf-8"))
        return bool(sha256(folder / _WEIGHTS) == about["sha256"])
    except (OSError, ValueError, KeyError):
        return False


def _make_room(root: Path, mine: Path) -> None:
    """Drop what was used longest ago, as far as there is more than `KEPT_BYTES`."""
    folders = sorted((f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")), key=_age, reverse=True)
    total = 0
    for folder in folders:
        total += sum(file.stat().st_size for file in folder.glob("*") if file.exists())
        if total > KEPT_BYTES and folder != mine:
            shutil.rmtree(folder, ignore_errors=True)


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def digest_of(path: str) -> str:
    """SHA-256 over a model directory's files, names and contents."""
    files = sorted(file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith("."))
    return _digest(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in files:
        total.update(f"{Path(name).name} {sha256(Path(name))}\n".encode())
    return total.hexdigest()
