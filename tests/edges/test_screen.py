"""Rung 0 on a real Ray: two control models judge what a space offers, once, and the search begins with the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bothways import spaces
from bothways.config import Run, Search
from bothways.errors import UserError

pytestmark = pytest.mark.ray

SPACE = """
input.augment.n_aug: [0, 1]
input.augment.policy.0.0.name:
  {choices: [random_swap, random_substitution, identity], when: {input.augment.n_aug: 1}}
input.augment.policy.0.0.p:
  {float: [0.05, 0.5], when: {input.augment.policy.0.0.name: [random_swap, random_substitution]}}
output.objectives.0.name: [cross_entropy, rdrop]
control: {input.augment.n_aug: 0, output.objectives.0.name: cross_entropy}
"""


def test_input_sides_are_judged_once_and_the_best_begin_the_search(cluster: Any, tmp_path: Path) -> None:
    from bothways.edges.screen import screen
    from tests import tiny

    (tmp_path / "space.yaml").write_text(SPACE)
    space = spaces.load_space(tmp_path / "space.yaml")
    base = tiny.experiment(optim={"steps": 40, "evaluate_every": 20, "lr": 0.01})
    search = Search(space="space.yaml", trials=16, screen=12)
    run = Run(storage=str(tmp_path), cpus_per_worker=0.5)
    where = {"dataset": tiny.dataset(), "directory": tmp_path, "run": run}
    found = screen(search, space, base, **where)

    lines = (tmp_path / "screen.tsv").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    assert 8 <= len(rows) <= 12
    assert {row["rows"] for row in rows} == {"70"}, "not every training and selection row was judged once"
    identity = next(row for row in rows if "=identity" in row["point"])
    assert (identity["fidelity"], identity["start"]) == ("1", "no")
    assert found.steps == 80
    assert len(found.points) <= 2
    assert all(set(point) <= {knob.path for knob in space.knobs} for point in found.points)

    begun = (tmp_path / "screen.json").stat().st_mtime_ns
    assert screen(search, space, base, **where) == found
    assert (tmp_path / "screen.json").stat().st_mtime_ns == begun
    assert json.loads((tmp_path / "screen.json").read_text())["steps"] == 80


def test_a_space_without_an_input_side_has_nothing_to_screen(tmp_path: Path) -> None:
    from bothways.edges.screen import check

    (tmp_path / "space.yaml").write_text("optim.lr: [1e-4, 1e-3]\ncontrol: {optim.lr: 1e-4}\n")
    with pytest.raises(UserError, match=r"search\.screen 4 judges input sides, and space has no knob below `input\.`"):
        check(Search(space="", screen=4), spaces.load_space(tmp_path / "space.yaml"))
