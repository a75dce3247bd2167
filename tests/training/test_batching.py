"""The plan, tokenisation and padding."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.batches.batching import Encode, collate, evaluation_views, lengths, regroup
from bothways.batches.planning import Order, Plan, as_views, plan
from bothways.config import Augment, InputSide
from bothways.errors import UserError
from bothways.tokenization import tokenizer
from tests import tiny


def made(rows: int = 37, batch: int = 8, steps: int = 30, n_aug: int = 2, keep: bool = True, seed: int = 0) -> Plan:
    counts = np.random.default_rng(rows).integers(3, 40, rows)
    return plan(counts, Augment(n_aug=n_aug, keep_original=keep), batch_size=batch, steps=steps, seed=seed)


def views(found: Plan) -> list[tuple[int, int, int]]:
    return list(zip(found.epoch.ravel(), found.row.ravel(), found.copy.ravel(), strict=True))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 60),
    half=st.integers(1, 8),
    steps=st.integers(1, 40),
    n_aug=st.integers(0, 3),
    keep=st.booleans(),
)
def test_each_row_and_copy_is_seen_once_an_epoch_by_one_of_the_workers(
    rows: int, half: int, steps: int, n_aug: int, keep: bool
) -> None:
    if n_aug == 0 and not keep:
        return
    whole = made(rows, 2 * half, steps, n_aug, keep)
    ranks = [whole.share(rank, 2) for rank in range(2)]
    seen = Counter(itertools.chain.from_iterable(views(part) for part in ranks))
    assert [part.row.shape for part in ranks] == [(steps, half)] * 2
    assert set(seen.values()) == {1}
    copies = range(0 if keep else 1, n_aug + 1)
    complete = steps * 2 * half // (rows * len(copies))
    assert all((e, r, c) in seen for e in range(complete) for r in range(rows) for c in copies)
    assert max(epoch for epoch, _, _ in seen) <= complete


def test_the_order_is_a_function_of_the_seed_and_more_steps_extend_it() -> None:
    assert views(made(seed=4)) == views(made(seed=4))
    assert views(made(seed=4)) != views(made(seed=5))
    window = 14 * 8  # batches of an epoch of 37 x 3 views
    assert views(made(steps=14))[:window] == views(made(steps=28))[:window]


def test_rows_of_a_batch_are_of_like_length_but_batches_come_in_random_order() -> None:
    counts = np.random.default_rng(0).integers(3, 40, 400)
    found = plan(counts, Augment(), batch_size=16, steps=25, seed=0)
    per_batch = counts[found.row]
    padding = 1 - per_batch.sum() / (per_batch.max(axis=1) * 16).sum()
    assert padding < 0.06  # random batches of these lengths: about 0.45
    assert np.corrcoef(np.arange(25), per_batch.mean(axis=1))[0, 1] < 0.6


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(UserError, match="n_aug is 0 and keep_original is false"):
        made(n_aug=0, keep=False)
    with pytest.raises(UserError, match="no rows"):
        made(rows=0)


def test_views_carry_their_row_epoch_and_copy() -> None:
    train = tiny.rows(10, seed=0, first_id=100)
    found = made(rows=10, batch=4, steps=5, n_aug=1)
    planned = found.views(train)
    table = planned.slice(0, planned.num_rows)
    assert planned.slice(7, 6).equals(table.slice(7, 6))
    assert table.column_names == ["id", "text", "pair", "label", "epoch", "copy", "progress"]
    assert table["id"].to_pylist() == [100 + row for row in found.row.ravel()]
    assert table["copy"].to_pylist() == found.copy.ravel().tolist()
    assert table["progress"].to_pylist() == np.repeat([0.0, 0.2, 0.4, 0.6, 0.8], 4).tolist()


def test_a_view_knows_its_place_in_the_training_also_after_a_restart_and_on_any_worker() -> None:
    train = tiny.rows(10, seed=0)
    found = made(rows=10, batch=4, steps=5)
    whole = found.views(train).slice(0, 20)["progress"].to_numpy().reshape(5, 4)
    resumed = found.share(1, 2).steps(2, 5).views(train)
    assert resumed.slice(1, 4)["progress"].to_pylist() == [0.4, 0.6, 0.6, 0.8]
    assert (whole[2:, 1::2] == resumed.slice(0, 6)["progress"].to_numpy().reshape(3, 2)).all()
    assert found.steps(5, 5).views(train).slice(0, 4).num_rows == 0


ENCODING = """
import pathlib, pickle, sys
encode, views = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
pathlib.Path(sys.argv[2]).write_bytes(pickle.dumps(encode(views)))
assert not {"torch", "transformers"} & sys.modules.keys()
"""


def test_a_process_that_only_encodes_imports_no_model(tmp_path: Path) -> None:
    side = InputSide.model_validate({"augment": {"n_aug": 1, "policy": [[{"name": "random_swap", "p": 0.5}]]}})
    encode = Encode(tokenizer_path=tiny.model_dir(), max_length=9, paired=False, side=side)
    views = as_views(tiny.rows(12, seed=3), np.zeros(12, np.int64), np.arange(12) % 2)
    (tmp_path / "work").write_bytes(pickle.dumps((encode, views)))
    command = [sys.executable, "-c", ENCODING, str(tmp_path / "work"), str(tmp_path / "found")]
    subprocess.run(command, check=True, timeout=60)
    assert pickle.loads((tmp_path / "found").read_bytes()) == encode(views)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_encoding_is_what_the_tokenizer_says_cut_to_length(family: str, paired: bool) -> None:
    table = tiny.rows(12, seed=3, paired=paired)
    encode = Encode(tokenizer_path=tiny.model_dir(family), max_length=9, paired=paired)
    found = pickle.loads(pickle.dumps(encode))(evaluation_views(table))
    fast = tokenizer(tiny.model_dir(family))
    pairs = table["pair"].to_pylist() if paired else None
    expected = fast(table["text"].to_pylist(), pairs, truncation=True, max_length=9)
    assert found["input_ids"].to_pylist() == expected["input_ids"]
    assert max(lengths(found)) == 9
    if paired and family == "bert":
        assert found["token_type_ids"].to_pylist() == expected["token_type_ids"]
    else:
        assert "token_type_ids" not in found.column_names


def test_blocks_of_any_size_become_tables_of_one_size_in_order() -> None:
    blocks = [
        pa.table({"x": pa.array(range(start, stop), pa.int64())})
        for start, stop in [(0, 0), (0, 5), (5, 6), (6, 19), (19, 20)]
    ]
    found = [table["x"].to_pylist() for table in regroup(blocks, 4)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]
    assert [len(x["x"]) for x in regroup(blocks, 7)] == [7, 7, 6]


def test_a_batch_is_padded_to_its_longest_row() -> None:
    rows = pa.table(
        {
            "input_ids": pa.array([[5, 6, 7], [8]], pa.list_(pa.int32())),
            "token_type_ids": pa.array([[0, 1, 1], [1]], pa.list_(pa.int32())),
            "label": [1, 0],
            "is_copy": [True, False],
        }
    )
    batch = collate(rows, pad_id=9)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [1, 0]
    assert batch.is_copy.tolist() == [True, False]
    assert collate(rows.slice(1), pad_id=9).inputs["input_ids"].tolist() == [[8]]


def test_repeating_a_batch_puts_the_views_one_after_the_other() -> None:
    batch = collate(
        pa.table({"input_ids": pa.array([[1], [2]], pa.list_(pa.int32())), "label": [0, 1], "is_copy": [False, True]}),
        pad_id=0,
    )
    twice = batch.repeat(2)
    assert twice.inputs["input_ids"].tolist() == [[1], [2], [1], [2]]
    assert twice.labels.tolist() == [0, 1, 0, 1]
    assert torch.equal(twice.slice(2, 4).is_copy, batch.is_copy)


UNEQUAL = np.array([0] * 40 + [1] * 10 + [2] * 4)


def of_classes(**how: Any) -> Plan:
    augment = how.pop("augment", Augment())
    counts = np.random.default_rng(3).integers(3, 40, len(UNEQUAL))
    return plan(counts, augment, batch_size=9, steps=60, seed=how.pop("seed", 1), order=Order(classes=UNEQUAL, **how))


def test_balanced_sampling_shows_classes_equally_often_and_the_rows_of_one_as_well() -> None:
    found = of_classes(balanced=True, augment=Augment(n_aug=1))
    assert np.bincount(UNEQUAL[found.row.ravel()]).tolist() == [180, 180, 180]
    seen = Counter(views(found))
    assert set(seen.values()) == {1}, "a row comes back in another epoch, so its copies are others"
    for kind in range(3):
        times = Counter((row, copy) for _, row, copy in seen if UNEQUAL[row] == kind)
        assert len(times) == 2 * (kind == UNEQUAL).sum()
        assert max(times.values()) - min(times.values()) <= 1
    assert views(found) == views(of_classes(balanced=True, augment=Augment(n_aug=1)))
    assert views(found) != views(of_classes(balanced=True, augment=Augment(n_aug=1), seed=2))
    assert views(of_classes()) == views(made_alike())


def made_alike() -> Plan:
    counts = np.random.default_rng(3).integers(3, 40, len(UNEQUAL))
    return plan(counts, Augment(), batch_size=9, steps=60, seed=1)


@pytest.mark.parametrize(
    ("n_aug", "keep", "copies"), [(0, True, [1, 4, 10]), (1, True, [2, 8, 20]), (2, False, [2, 8, 20])]
)
def test_balanced_augmentation_gives_rarer_classes_more_copies(n_aug: int, keep: bool, copies: list[int]) -> None:
    found = of_classes(augment=Augment(n_aug=n_aug, keep_original=keep, balance=True))
    first_epoch = [(row, copy) for epoch, row, copy in views(found) if epoch == 0]
    assert len(set(first_epoch)) == len(first_epoch) == 40 * copies[0] + 10 * copies[1] + 4 * copies[2]
    for kind, each in enumerate(copies):
        seen = {row: {c for r, c in first_epoch if r == row} for row in np.flatnonzero(kind == UNEQUAL)}
        assert all(found == set(range(1 - keep, each + 1 - keep)) for found in seen.values())


def test_no_row_gets_more_copies_than_there_may_be() -> None:
    classes = np.array([0] * 500 + [1])
    found = plan(np.full(501, 9), Augment(balance=True), batch_size=1, steps=565, seed=0, order=Order(classes=classes))
    assert sorted(copy for _, row, copy in views(found) if row == 500) == list(range(65))
