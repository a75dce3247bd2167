"""Ray Data, really: what is read is what was planned, it is made while nobody asks, and no more of it than may lie."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bothways.batches import batching, planning
from bothways.config import InputSide
from tests import tiny

pytestmark = pytest.mark.ray

SIDE = InputSide.model_validate(
    {"augment": {"n_aug": 2, "policy": [[{"name": "random_deletion", "p": 0.3}, {"name": "random_swap", "p": 0.2}]]}}
)


def planned(steps: int, rows: int = 50) -> planning.PlannedViews:
    lengths = np.random.default_rng(0).integers(3, 12, rows)
    plan = planning.plan(lengths, SIDE.augment, batch_size=16, steps=steps, seed=3)
    return plan.views(tiny.rows(rows, seed=1))


def encode() -> batching.Encode:
    return batching.Encode(tokenizer_path=tiny.model_dir(), max_length=16, paired=False, side=SIDE, seed=3)


def test_all_epochs_are_one_execution_and_equal_those_read_in_this_process(cluster: Any) -> None:
    from bothways.edges import local
    from bothways.edges.ray_data import RayExecute

    views = planned(steps=200)
    assert views.epoch.max() > 15
    here = pa.concat_tables(local.execute(views, encode()))
    for block_rows in (100, 16384):
        blocks = list(RayExecute(block_rows=block_rows)(views, encode()))
        assert pa.concat_tables(blocks).combine_chunks() == here.combine_chunks()
        assert max(block.num_rows for block in blocks) <= max(block_rows, 100)


def test_the_next_blocks_are_encoded_while_the_first_one_is_used(cluster: Any, tmp_path: Path) -> None:
    from bothways.edges.ray_data import RayExecute

    def noted(views: pa.Table) -> pa.Table:
        (tmp_path / str(views["epoch"][0].as_py())).touch()
        return views.append_column("padding", pa.array(["x" * 1000] * views.num_rows))

    views = planned(steps=5000)
    blocks = RayExecute(block_rows=2000)(views, noted)
    first = next(blocks)
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 8:  # this process asks for nothing meanwhile
        assert time.monotonic() < until
        time.sleep(0.05)
    assert first.num_rows + sum(block.num_rows for block in blocks) == views.num_rows


def test_a_slow_reader_does_not_fill_the_memory(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bothways.edges import ray_data

    megabytes = 8

    def large(views: pa.Table) -> pa.Table:
        (tmp_path / str(time.monotonic_ns())).touch()
        return pa.table({"bytes": pa.array([b"x" * (megabytes << 20)])})

    monkeypatch.setattr(ray_data, "AHEAD_BYTES", 64 << 20)
    ray_data.quiet.cache_clear()
    try:
        blocks = ray_data.RayExecute(block_rows=100)(planned(steps=600), large)  # 96 blocks, 768 MB
        next(blocks)
        time.sleep(8)
        assert len(list(tmp_path.iterdir())) < 48
        assert 1 + sum(1 for _ in blocks) == 96
    finally:
        monkeypatch.undo()
        ray_data.quiet.cache_clear()
        ray_data.quiet()


def test_a_reader_that_stops_early_leaves_nothing_running(cluster: Any) -> None:
    from bothways.edges.ray_data import RayExecute

    for _ in range(3):
        blocks = RayExecute(block_rows=200)(planned(steps=2000), encode())
        assert next(blocks).num_rows == 200
        blocks.close()
    until = time.monotonic() + 60
    while cluster.available_resources().get("CPU") != cluster.cluster_resources()["CPU"]:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_nothing_to_read_starts_nothing(cluster: Any) -> None:
    from bothways.edges.ray_data import RayExecute

    assert list(RayExecute()(planned(steps=1).slice(0, 0), encode())) == []
