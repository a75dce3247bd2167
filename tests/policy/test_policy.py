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


def with_progress(table: pa.Table, progress: float) -> pa.Table:
    return table.append_column("progress", pa.array(np.full(len(table), progress)))


def share_dropped(schedule: Any, progress: float) -> float:
    """Of the words of augmented copies."""
    table = with_progress(views(n=300, copies=1, epochs=1), progress)
    result = read(table, side([{"name": "random_deletion", "p": 0.4, "schedule": schedule}]))["text"].to_pylist()
    copies = [len(text.split()) for text, copy in zip(result, table["copy"].to_pylist(), strict=True) if copy]
    return 1 - float(np.mean(copies)) / 15.5  # the row's number at its end is protected


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        ("constant", 0.3, 1.0),
        ("rising", 0.0, 0.0),
        ("rising", 0.5, 0.5),
        ("falling", 0.0, 1.0),
        ("falling", 0.75, 0.25),
        ([[0.25, 0.5], [0.5, 1.0]], 0.0, 0.5),
        ([[0.25, 0.5], [0.5, 1.0]], 0.49, 0.5),
        ([[0.25, 0.5], [0.5, 1.0]], 0.5, 1.0),
        ([[0.0, 0.0], [0.7, 1.0]], 7 / 10, 1.0),
    ],
)
def test_a_schedule_multiplies_the_magnitude(schedule: Any, progress: float, factor: float) -> None:
    expected = 0.4 * factor * 15 / 15.5
    assert abs(share_dropped(schedule, progress) - expected) < 5 * (0.25 / (300 * 15)) ** 0.5


def test_a_transform_without_a_magnitude_has_its_probability_scheduled() -> None:
    knobs = {"name": "nlpaug", "augmenter": "char.KeyboardAug", "arguments": {"aug_char_p": 0.9}, "schedule": "rising"}
    for progress, low, high in ((0.0, 0.0, 0.0), (0.3, 0.2, 0.4), (0.9, 0.8, 1.0)):
        table = with_progress(views(n=300, copies=1, epochs=1), progress)
        of = side([knobs], protect={"numbers": False})
        result = read(table, of)["text"].to_pylist()
        changed = np.array([a != b for a, b in zip(result, table["text"].to_pylist(), strict=True)])
        assert low <= changed[np.asarray(table["copy"]) > 0].mean() <= high


def test_without_a_place_in_a_training_schedules_are_constant() -> None:
    scheduled = side([{"name": "random_deletion", "p": 0.3, "schedule": "rising"}])
    assert read(views(), scheduled).equals(read(views(), side(DELETE)))


def test_scheduled_rows_do_not_depend_on_their_block() -> None:
    table = views(n=500, copies=1, epochs=1)
    table = table.append_column("progress", pa.array(np.linspace(0, 1, len(table), endpoint=False)))
    of = side([{"name": "random_swap", "p": 0.5, "schedule": [[0, 0.1], [0.4, 1]], "probability": 0.7}])
    whole = read(table, of)["text"].to_pylist()
    for size in (1, 97, 400):
        parts = [table.slice(i, size) for i in range(0, 400 if size == 1 else len(table), size)]
        found = [text for part in parts for text in read(part, of)["text"].to_pylist()]
        assert found == whole[: len(found)]


@pytest.mark.parametrize(
    ("schedule", "complaint"),
    [
        ([], "at least one pair"),
        ([[0.5, 1], [0.2, 1]], "must grow"),
        ([[0.5, 1], [0.5, 0]], "must grow"),
        ("up", "rising"),
        ([[0, 2]], "less than or equal to 1"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(schedule: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        side([{"name": "random_swap", "schedule": schedule}])
