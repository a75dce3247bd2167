"""Wanted members come out whole; nothing an archive says decides where anything is written."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bothways.assets.archives import extract
from bothways.assets.manifest import ASSETS
from bothways.assets.pins import Distribution, Package
from bothways.errors import UserError
from tests.assets import packing

CONTENT = b"odd length\n"  # 11 bytes: a Debian archive pads its members to even offsets
MAKERS: dict[Distribution, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "wheel": packing.wheel,
    "sdist": packing.tar,
    "npm": packing.tar,
    "deb": packing.deb,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_wanted_members_of_each_kind_of_package_come_out_and_no_others(kind: Distribution, tmp_path: Path) -> None:
    file = MAKERS[kind](tmp_path / "package", {"a/wanted.txt": CONTENT, "a/other.txt": b"no", "b/词.txt": b"yes"})
    package = packing.pinned(file, kind, {"a/wanted.txt": "deep/kept.txt", "b/词.txt": "word.txt"})
    out = tmp_path / "out"
    extract(file, package, out)
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == {"deep/kept.txt": CONTENT, "word.txt": b"yes"}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_missing_member_is_named(kind: Distribution, tmp_path: Path) -> None:
    file = MAKERS[kind](tmp_path / "package", {"a.txt": CONTENT})
    with pytest.raises(UserError, match=r"lacks b\.txt$"):
        extract(file, packing.pinned(file, kind, {"a.txt": "a.txt", "b.txt": "b.txt"}), tmp_path / "out")


@pytest.mark.parametrize("kind", MAKERS)
def test_members_that_point_outside_are_never_written(kind: Distribution, tmp_path: Path) -> None:
    inside = tmp_path / "x" / "y"
    inside.mkdir(parents=True)
    file = MAKERS[kind](inside / "package", {"../../evil.txt": b"evil", "/evil.txt": b"evil", "a.txt": CONTENT})
    extract(file, packing.pinned(file, kind, {"a.txt": "a.txt"}), inside / "out")
    assert [path.name for path in tmp_path.rglob("*evil*")] == []
    assert (inside / "out" / "a.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", MAKERS)
def test_a_folder_is_taken_with_all_that_is_in_it(kind: Distribution, tmp_path: Path) -> None:
    inside = tmp_path / "x"
    inside.mkdir()
    members = {"data/a/1.txt": CONTENT, "data/a/deep/2.txt": b"2", "data/ab/3.txt": b"no"}
    file = MAKERS[kind](inside / "package", {**members, "data/a/../../../evil.txt": b"evil"})
    extract(file, packing.pinned(file, kind, {"data/a/": "kept/"}), inside / "out")
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.txt")}
    assert found == {"x/out/kept/1.txt": CONTENT, "x/out/kept/deep/2.txt": b"2"}
    with pytest.raises(UserError, match=r"lacks data/b/$"):
        extract(file, packing.pinned(file, kind, {"data/a/": "kept/", "data/b/": "b/"}), inside / "other")


def test_a_folder_in_a_zip_is_no_file(tmp_path: Path) -> None:
    file = packing.wheel(tmp_path / "package", {"a/": b"", "a/b/": b"", "a/b/c.txt": CONTENT})
    extract(file, packing.pinned(file, "wheel", {"a/": "out/"}), tmp_path)
    assert (tmp_path / "out" / "b" / "c.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("linktype", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_under_a_wanted_name_is_not_followed(linktype: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    file = tmp_path / "package"
    with tarfile.open(file, "w:gz") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.type, entry.linkname = linktype, str(secret)
        archive.addfile(entry)
        archive.addfile(tarfile.TarInfo("b.txt"), io.BytesIO())
    with pytest.raises(UserError, match=r"lacks a\.txt"):
        extract(file, packing.pinned(file, "sdist", {"a.txt": "a.txt"}), tmp_path / "out")


@pytest.mark.parametrize("target", ["../up.txt", "/etc/up.txt", "a/../../up.txt"])
def test_the_manifest_itself_cannot_write_outside_the_asset(target: str) -> None:
    with pytest.raises(ValueError, match="leave the asset's folder"):
        Package(kind="wheel", name="p", version="1", sha256="0" * 64, size=1, members={"a": target})


@pytest.mark.parametrize(("member", "target"), [("a/", "b"), ("a", "b/")])
def test_a_folder_becomes_a_folder_and_a_file_a_file(member: str, target: str) -> None:
    with pytest.raises(ValueError, match="not both folders"):
        Package(kind="wheel", name="p", version="1", sha256="0" * 64, size=1, members={member: target})


def test_another_layout_is_another_folder() -> None:
    wordnet = ASSETS["wordnet"]
    assert dataclasses.replace(wordnet, layout=1).folder == wordnet.folder
    assert dataclasses.replace(wordnet, layout=2).folder != wordnet.folder


def test_a_file_that_is_no_debian_package_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "package"
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="not a Debian package"):
        extract(file, packing.pinned(file, "deb", {"a": "a"}), tmp_path / "out")


def test_every_entry_of_the_manifest_is_complete() -> None:
    assert {"minilm-l6", "rotten_tomatoes", "reuters_r8", "wordnet", "chinese_thesaurus"} <= set(ASSETS)
    for name, asset in ASSETS.items():
        assert name == asset.name
        assert asset.licence and asset.citation and asset.about
        assert (asset.kind == "data") == (asset.read is not None), name
        for package in asset.packages:
            assert len(bytes.fromhex(package.sha256)) == 32, name
            assert package.members, name
    assert len({asset.folder for asset in ASSETS.values()}) == len(ASSETS)
