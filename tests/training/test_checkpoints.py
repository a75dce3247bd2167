"""Checkpoints against crashes, damage and malice (RELIABILITY matrix 10 to 12)."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from bothways.errors import UserError
from bothways.training import checkpoints

STATE = {"step": 3, "weights": {"w": torch.arange(6.0)}, "note": "x", "none": None, "list": [1.5, {"a": True}]}


def saved(directory: Path, *steps: int) -> None:
    for step in steps:
        checkpoints.save(directory, step, {**STATE, "step": step})


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    loaded = checkpoints.load(tmp_path)
    assert loaded.notes == ()
    assert loaded.state is not None
    assert torch.equal(loaded.state["weights"]["w"], STATE["weights"]["w"])  # type: ignore[index]
    assert {k: v for k, v in loaded.state.items() if k != "weights"} == {
        k: v for k, v in STATE.items() if k != "weights"
    }


def test_nothing_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path / "absent") == checkpoints.Loaded(state=None)


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 5, 10, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, damage: Any, file: str) -> None:
    saved(tmp_path, 5, 10)
    damage(tmp_path / "step-00000010" / file)
    loaded = checkpoints.load(tmp_path)
    assert loaded.state is not None
    assert loaded.state["step"] == 5
    assert len(loaded.notes) == 1
    assert loaded.notes[0].startswith("checkpoint step-00000010 cannot be used")


def test_when_all_are_damaged_there_is_none_and_each_is_named(tmp_path: Path) -> None:
    saved(tmp_path, 5, 10)
    for step in ("05", "10"):
        truncate(tmp_path / f"step-000000{step}" / "state.pt")
    loaded = checkpoints.load(tmp_path)
    assert loaded.state is None
    assert len(loaded.notes) == 2


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["BOMB"],))


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    saved(tmp_path / "c", 5)
    shutil.copytree(tmp_path / "c" / "step-00000005", tmp_path / "c" / "step-00000010")
    evil = tmp_path / "c" / "step-00000010"
    torch.save({"step": Bomb()}, evil / "state.pt")
    manifest = {"state.pt": {"sha256": sha256((evil / "state.pt").read_bytes()).hexdigest()}}
    (evil / "manifest.json").write_text(json.dumps(manifest))
    loaded = checkpoints.load(tmp_path / "c")
    assert not (tmp_path / "exploded").exists()
    assert loaded.state is not None
    assert loaded.state["step"] == 5
    assert "step-00000010" in loaded.notes[0]
    torch.load(evil / "state.pt", weights_only=False)  # the bomb is live: only the reader kept it from going off
    assert (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_the_last_good_one_and_names_path_free_and_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 5)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    with pytest.raises(UserError, match=rf"no space in {tmp_path}: .* MB needed, 0.0 MB free"):
        saved(tmp_path, 10)
    loaded = checkpoints.load(tmp_path)
    assert loaded.state is not None
    assert (loaded.state["step"], loaded.notes) == (5, ())


def test_a_write_that_breaks_off_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 5)

    def breaks_off(state: Any, file: Path) -> None:
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", breaks_off)
    with pytest.raises(UserError, match=r"cannot write .*step-00000010.*No space left"):
        saved(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_what_a_killed_writer_left_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".step-00000005.abcd").mkdir()
    saved(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
