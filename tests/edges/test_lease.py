"""A sweep's own directory: its number, and what is said where there can be none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bothways.edges.lease import identity, lease, sweep_directory
from bothways.errors import UserError


def test_numbers_go_on_beyond_three_digits(tmp_path: Path) -> None:
    assert sweep_directory(tmp_path / "runs", "mine", resume=False).name == "mine-001"
    for name in ("mine-999", "mine-1000", "mine-train-2000", "mine-2000-copy", "mine-12"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert sweep_directory(tmp_path / "runs", "mine", resume=False).name == "mine-1001"
    assert sweep_directory(tmp_path / "runs", "mine", resume=True).name == "mine-1000"
    with pytest.raises(UserError, match="there is no sweep of other"):
        sweep_directory(tmp_path / "runs", "other", resume=True)


def test_a_storage_that_is_a_file_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    said = r"run.storage: \S+/runs cannot be written to \(File exists\): name another"
    with pytest.raises(UserError, match=said):
        sweep_directory(tmp_path / "runs", "mine", resume=False)
    with pytest.raises(UserError, match=said), lease(tmp_path / "runs"):
        pass


def test_what_a_sweep_was_begun_with_is_there_before_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def replace(self: Path, to: Path) -> Path:
        written.append(to.name)
        return self.rename(to)

    monkeypatch.setattr(Path, "replace", replace)
    first = identity(tmp_path, {"data": "a"}, {"pipeline.yaml": "name: p\n"})
    assert written == ["pipeline.yaml", "sweep.json"]
    assert identity(tmp_path, {"data": "a"}, {}) == first
    assert json.loads((tmp_path / "sweep.json").read_text())["data"] == "a"
    with pytest.raises(UserError, match="begun with another data"):
        identity(tmp_path, {"data": "b"}, {})
