"""Packages of every distribution kind, made by hand from a mapping of members: small, real, and offline."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from bothways.assets.pins import Distribution, Package


def wheel(path: Path, members: Mapping[str, bytes], name: str = "sample", version: str = "1.0") -> Path:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def tar(path: Path, members: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def deb(path: Path, members: Mapping[str, bytes]) -> Path:
    data = tar(path.with_suffix(".data"), {f"./{member}": content for member, content in members.items()}, "w:xz")
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.read_bytes()}
    with path.open("wb") as archive:
        archive.write(b"!<arch>\n")
        for name, content in parts.items():
            archive.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            archive.write(content + b"\n" * (len(content) % 2))
    return path


def pinned(
    file: Path, kind: Distribution, members: Mapping[str, str], name: str = "sample", version: str = "1.0"
) -> Package:
    """The manifest entry that pins `file` as it is now."""
    return Package(
        kind=kind,
        name=name,
        version=version,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        size=file.stat().st_size,
        members=members,
    )
