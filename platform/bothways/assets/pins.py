"""What an asset is: named files of pinned packages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from bothways.assets.readers import Rows

Distribution = Literal["wheel", "sdist", "deb", "npm", "index"]
_SUFFIX = {"wheel": ".whl", "sdist": ".tar.gz", "deb": ".deb", "npm": ".tgz", "index": ""}
WHOLE = "index"
"""What stands for the whole file of an `index` among its `members`."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One pinned package file and which of its members are wanted. An `index` is a file of Debian's package index, by
    its path below `dists/`; it has no members but itself.

    `sha256`, `size` (bytes): of the package file as its distribution's client downloads it.
    `members`: path inside the archive → path inside the asset's folder. A path that ends in a slash is a folder with
    all that is in it, and so is where it goes.
    """

    kind: Distribution
    name: str
    version: str
    sha256: str
    size: int
    members: Mapping[str, str]

    def __post_init__(self) -> None:
        for member, target in self.members.items():
            if not _stays_inside(target):
                raise ValueError(f"{self.name}: member {target!r} would leave the asset's folder")
            if member.endswith("/") != target.endswith("/"):
                raise ValueError(f"{self.name}: {member!r} and {target!r} are not both folders, or both files")

    @property
    def file(self) -> str:
        """The name the package file has in the cache."""
        return f"{self.name}-{self.version}{_SUFFIX[self.kind]}".replace("/", "-").replace(":", "-")

    def place(self, name: str) -> tuple[str, str] | None:
        """Which of `members` a file of the archive belongs to, and its path inside the asset's folder."""
        if name.endswith("/"):
            return None
        if name in self.members:
            return name, self.members[name]
        for folder, target in self.members.items():
            if folder.endswith("/") and name.startswith(folder) and _stays_inside(name.removeprefix(folder)):
                return folder, target + name.removeprefix(folder)
        return None


def _stays_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts


@dataclass(frozen=True, kw_only=True)
class Asset:
    """`convert`: makes the folder's final files from its members, once, before the folder appears in the cache.
    `layout`: raise it when what `convert` makes changes, and the folder is made again.
    `read`: for data, the folder's rows by split: `train`, maybe `selection`, `test` and `unlabelled` (text of the same
    domain). `texts`, `targets`: other fields than `text` and `label` that its arguments of these names may be, to read
    something else, or for a label of another task. `pair`: the names of a row's two texts, where it has two.
    `optional`: fetched only by its name, never with all the others.
    """

    name: str
    kind: Literal["model", "data", "lexicon"]
    about: str
    packages: tuple[Package, ...]
    licence: str
    citation: str
    convert: Callable[[Path], None] | None = None
    layout: int = 1
    optional: bool = False
    read: Callable[..., Rows] | None = field(default=None)
    texts: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    pair: tuple[str, str] | None = None

    @property
    def folder(self) -> str:
        """The name of the asset's folder in the cache: another pin, member or layout is another folder."""
        pins = [[package.sha256, sorted(package.members.items())] for package in self.packages]
        made = [pins, self.layout] if self.layout > 1 else pins
        return f"{self.name}-{hashlib.sha256(json.dumps(made).encode()).hexdigest()[:12]}"

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)


def inside(folder: str, *files: str, to: str = "") -> dict[str, str]:
    """`members` for files of one folder."""
    return {f"{folder}/{file}": f"{to}{file}" for file in files}
