"""Episodes: balanced, of rows that are never in both halves, of classes that meta-training has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bothways.config.few_shot import Classes, Episodes
from bothways.config.yaml_io import dump, load_pipeline
from bothways.data import Dataset
from bothways.errors import UserError
from bothways.few_shot.episodes import draw, draw_for_training, pools

SIZES = {"a": 30, "b": 3, "c": 20, "d": 12, "e": 11, "f": 10}
SHAPE = Episodes(ways=3, shots=2, queries=4)


def table(sizes: dict[str, int], first: int = 0) -> pa.Table:
    labels = [number for number, count in enumerate(sizes.values()) for _ in range(count)]
    return pa.table(
        {
            "id": pa.array(range(first, first + len(labels)), pa.int64()),
            "text": pa.array([f"text {first + at}" for at in range(len(labels))], pa.string()),
            "pair": pa.nulls(len(labels), pa.string()),
            "label": pa.array(labels, pa.int64()),
        }
    )


def dataset(mixed: int = 0) -> Dataset:
    """Rows of six classes over three splits, and of as many other domains as asked for."""
    rows = table(SIZES)
    thirds = [rows.take(pa.array(np.arange(start, rows.num_rows, 3))) for start in range(3)]
    return Dataset(
        **dict(zip(("train", "selection", "test"), thirds, strict=True)),
        labels=tuple(SIZES),
        digest="episodes",
        notes=(),
        mixed=tuple(table(SIZES, first=1000 * (number + 1)) for number in range(mixed)),
    )


def labels_of(rows: pa.Table, at: Any) -> list[str]:
    return [list(SIZES)[number] for number in rows["label"].take(pa.array(at)).to_pylist()]


def test_an_episode_is_balanced_and_no_row_is_in_both_halves() -> None:
    found = pools(dataset(), Classes(train=("a", "c")), SHAPE.model_copy(update={"ways": 2}))
    pool = found.test
    seen: set[str] = set()
    for number in range(20):
        drawn = draw(pool, SHAPE, "test", 7, number)
        assert (drawn.support.shape, drawn.query.shape) == ((2, 3), (4, 3))
        both = np.concatenate([drawn.support, drawn.query])
        assert len(np.unique(both)) == both.size
        ways = [set(labels_of(found.table, both[:, way])) for way in range(3)]
        assert [len(names) for names in ways] == [1, 1, 1] and len(set.union(*ways)) == 3
        seen |= set(both.ravel().tolist())
    assert seen == {int(row) for rows in pool.values() for row in rows}


def test_an_episode_follows_from_its_key_and_nothing_else() -> None:
    pool = pools(dataset(), Classes(train=("a", "c", "d")), SHAPE.model_copy(update={"ways": 2})).train[0]
    alone = draw(pool, SHAPE, "test", 7, 3)
    for number in range(5):
        again = draw(pool, SHAPE, "test", 7, number)
    assert np.array_equal(draw(pool, SHAPE, "test", 7, 3).support, alone.support)
    assert not np.array_equal(again.support, alone.support)


@pytest.mark.parametrize(
    ("classes", "train", "test"),
    [
        (Classes(train=3), ["a", "c", "d"], ["e", "f"]),
        (Classes(train=3, test=1), ["a", "c", "d"], ["f"]),
        (Classes(train=("f", "d"), test=("c", "a")), ["d", "f"], ["a", "c"]),
        (Classes(train=("f",), test=2), ["f"], ["d", "e"]),
    ],
)
def test_classes_are_divided_by_how_common_they_are_or_by_name(
    classes: Classes, train: list[str], test: list[str]
) -> None:
    few = Episodes(ways=2, shots=2, queries=4)
    if len(train) < 2 or len(test) < 2:
        with pytest.raises(UserError, match="ways is 2, but only 1 of 1 classes"):
            pools(dataset(), classes, few)
        return
    found = pools(dataset(), classes, few)
    assert (sorted(found.train[0]), sorted(found.test)) == (train, test)
    every = [set(rows.tolist()) for pool in (*found.train, found.test) for rows in pool.values()]
    assert sum(map(len, every)) == len(set.union(*every))
    for pool in (*found.train, found.test):
        for label, rows in pool.items():
            assert len(rows) == SIZES[label] and set(labels_of(found.table, rows)) == {label}
    assert bool(found.notes) == (classes.test is None) and all("left out: b" in note for note in found.notes)


def test_domains_are_pools_of_their_own_and_the_datas_own_judges() -> None:
    found = pools(dataset(mixed=2), None, SHAPE)
    own = sum(SIZES.values())
    assert [sorted(pool) for pool in found.train] == [["a", "c", "d", "e", "f"]] * 2
    assert all(rows.max() < own for rows in found.test.values())
    ids = found.table["id"].to_numpy()
    domains = set()
    for number in range(10):
        drawn = draw_for_training(found.train, SHAPE, "meta-train", 0, number)
        both = np.concatenate([drawn.support, drawn.query])
        (domain,) = {int(ids[row]) // 1000 for row in both.ravel()}
        domains.add(domain)
    assert domains == {1, 2}


@pytest.mark.parametrize(
    ("classes", "shape", "said"),
    [
        (None, {}, "few_shot.classes is missing"),
        (Classes(train=("a", "z")), {}, "no class 'z': known: a, b, c, d, e, f"),
        (Classes(train=("a", "c"), test=("a", "d")), {}, "'a' is in train and in test"),
        (Classes(train=("a", "b", "c")), {}, "class 'b' has 3 rows, an episode takes 6 of each class"),
        (Classes(train=2), {"ways": 4}, "ways is 4, but only 2 of 2 classes have the 6 rows"),
        (Classes(train=3, test=4), {}, "test asks for 4 classes, but beside those of train 2 have 6 rows"),
        (Classes(train=3), {"shots": 12}, "ways is 3, but only 2 of 3 classes have the 16 rows"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(classes: Classes | None, shape: dict[str, int], said: str) -> None:
    with pytest.raises(UserError) as refusal:
        pools(dataset(), classes, SHAPE.model_copy(update=shape))
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("few_shot", "said"),
    [
        ({"arms": {"x": {"meta": "mamel"}}}, "unknown meta-learner 'mamel': did you mean 'maml'?"),
        ({"arms": {"x": {"meta": {"name": "maml", "order": "third"}}}}, "must be 'first' or 'second', not 'third'"),
        ({"arms": {}}, "needs at least one, such as"),
        ({"arms": {"x": {"meta": "none"}}, "episodes": {"way": 3}}, "unknown key 'way': did you mean 'ways'?"),
        ({"arms": {"x": {"meta": "none"}}, "episodes": {"ways": 1}}, "must be at least 2, not 1"),
        (
            {"arms": {"x": {"meta": "none"}}, "episodes": {"head": "zero", "adapt_steps": 0}},
            "adapt_steps 0 with head zero learns nothing",
        ),
    ],
)
def test_a_pipeline_says_what_is_wrong_with_its_few_shot_section(
    tmp_path: Path, few_shot: dict[str, Any], said: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(dump({"name": "p", "experiment": {"data": {"source": "x.csv"}}, "few_shot": few_shot}), "utf-8")
    with pytest.raises(UserError) as refusal:
        load_pipeline(file)
    assert said in str(refusal.value) and "\n" not in str(refusal.value) and "few_shot" in str(refusal.value)


def test_a_pipeline_without_the_section_is_written_as_before(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(dump({"name": "p", "experiment": {"data": {"source": "x.csv"}}}), "utf-8")
    assert "few_shot" not in load_pipeline(file).model_dump(mode="json")
    arms = {"plain": {"meta": "none"}, "sgd": {"meta": "reptile", "optim": {"algorithm": "sgd", "lr": 0.5}}}
    spec = {"name": "p", "experiment": {"data": {"source": "x.csv"}}, "few_shot": {"arms": arms}}
    file.write_text(dump(spec), "utf-8")
    loaded = load_pipeline(file, ["few_shot.episodes.ways=2", "few_shot.arms.sgd.optim.lr=0.1"])
    assert loaded.few_shot and loaded.few_shot.episodes.ways == 2
    assert loaded.few_shot.arms["sgd"].optim and loaded.few_shot.arms["sgd"].optim.lr == 0.1
    written = loaded.model_dump(mode="json")["few_shot"]["arms"]
    assert written["plain"] == {"meta": {"name": "none"}} and written["sgd"]["optim"]["algorithm"] == "sgd"
