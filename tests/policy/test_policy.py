"""Policies over tables: who is changed, by which sub-policy, and that nothing but the row decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bothways import policy
from bothways.config import InputSide
from bothways.errors import UserError

TEXT = "the good people of this old city laugh about a very long and funny story"


def views(n: int = 60, copies: int = 2, epochs: int = 2, pair: bool = False) -> pa.Table:
    rows = [(i, e, c) for e in range(epochs) for i in range(n) for c in range(copies + 1)]
    return pa.table(
        {
            "id": pa.array([r[0] for r in rows], pa.int64()),
            "text": pa.array([f"{TEXT} {r[0]}" for r in rows], pa.string()),
            "pair": pa.array([TEXT if pair else None for _ in rows], pa.string()),
            "label": pa.array([r[0] % 2 for r in rows], pa.int64()),
            "epoch": pa.array([r[1] for r in rows], pa.int32()),
            "copy": pa.array([r[2] for r in rows], pa.int32()),
        }
    )


def side(*sub_policies: list[dict[str, Any]], **more: Any) -> InputSide:
    return InputSide.model_validate({"augment": {"n_aug": 2, "policy": sub_policies}} | more)


DELETE = [{"name": "random_deletion", "p": 0.3}]


def read(table: pa.Table, of: InputSide, seed: int = 1, language: Any = "en") -> pa.Table:
    return policy.read(table, side=of, language=language, seed=seed, statistics=policy.statistics(table, "en"))


def test_originals_and_evaluation_rows_are_never_augmented() -> None:
    table = views()
    result = read(table, side(DELETE))
    changed = np.array([a != b for a, b in zip(result["text"].to_pylist(), table["text"].to_pylist(), strict=True)])
    copies = np.asarray(table["copy"]) > 0
    assert not changed[~copies].any()
    assert changed[copies].mean() > 0.9
    at_evaluation = table.set_column(4, "epoch", pa.array([-1] * len(table), pa.int32()))
    assert read(at_evaluation, side(DELETE)).equals(at_evaluation)


def test_other_columns_and_the_order_stay() -> None:
    table = views(pair=True)
    result = read(table, side(DELETE))
    assert result.schema == table.schema
    assert result.drop_columns(["text", "pair"]).equals(table.drop_columns(["text", "pair"]))


def test_rows_do_not_depend_on_their_block_or_order() -> None:
    table = views(n=2000, copies=1, epochs=1)
    of = side(
        DELETE,
        [{"name": "random_swap", "p": 0.2, "probability": 0.5}, {"name": "random_insertion", "p": 0.1}],
        reconstruct=[{"name": "normalize"}],
    )
    whole = read(table, of)["text"].to_pylist()
    order = np.random.default_rng(0).permutation(len(table))
    assert read(table.take(order), of)["text"].to_pylist() == [whole[i] for i in order]
    parts = [table.slice(i, 500) for i in range(0, len(table), 500)]
    assert [text for part in parts for text in read(part, of)["text"].to_pylist()] == whole


def test_every_epoch_copy_column_and_seed_is_another_draw() -> None:
    table = views(pair=True)
    result = read(table, side(DELETE)).to_pylist()
    first = [row for row in result if row["id"] == 0 and row["copy"] > 0]
    assert len({row["pair"] for row in first}) == len(first) == 4
    assert all(row["text"].removesuffix(" 0") != row["pair"] for row in first)
    assert read(table, side(DELETE), seed=2)["text"].to_pylist() != [row["text"] for row in result]


def test_one_sub_policy_is_drawn_for_each_copy() -> None:
    marked = [{"name": "random_insertion", "p": 1.0}]
    table = views(n=400, copies=1, epochs=1)
    result = read(table, side(DELETE, marked))
    copies = np.asarray(table["copy"]) > 0
    lengths = np.array([len(text.split()) for text in result["text"].to_pylist()])[copies]
    longer, shorter = (lengths > 16).mean(), (lengths < 16).mean()
    assert longer + shorter > 0.98
    assert 0.4 < longer < 0.6


def test_an_operation_is_applied_with_its_probability() -> None:
    table = views(n=1000, copies=1, epochs=1)
    result = read(table, side([{"name": "random_insertion", "p": 1.0, "probability": 0.25}]))
    changed = np.array([a != b for a, b in zip(result["text"].to_pylist(), table["text"].to_pylist(), strict=True)])
    assert 0.2 < changed[np.asarray(table["copy"]) > 0].mean() < 0.3


def test_reconstruction_applies_to_every_row() -> None:
    table = views(n=3)
    spaced = table.set_column(1, "text", pa.array([text + "  !" for text in table["text"].to_pylist()]))
    result = read(spaced, side(reconstruct=[{"name": "normalize"}]))
    assert all("  " not in text for text in result["text"].to_pylist())


def test_a_plain_copy_stays_a_plain_copy() -> None:
    table = views()
    assert read(table, side()).equals(table)


def test_empty_tables_and_null_pairs_are_no_trouble() -> None:
    assert len(read(views().slice(0, 0), side(DELETE))) == 0
    assert read(views(), side(DELETE))["pair"].null_count == len(views())


def test_an_augmentation_cannot_pose_as_reconstruction() -> None:
    with pytest.raises(ValueError, match="belongs under `augment`"):
        side(reconstruct=[{"name": "random_swap"}])


def test_a_language_a_transform_cannot_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    of = side(DELETE)
    monkeypatch.setattr(type(of.augment.policy[0][0].transform), "languages", ("en",))
    with pytest.raises(UserError, match="random_deletion reads en, but the data is 'zh'"):
        read(views(), of, language="zh")
