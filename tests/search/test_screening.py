"""Rung 0: what change does to a control model, how various it is, and which input sides begin a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bothways import policy, spaces
from bothways.config import InputSide
from bothways.policy import screening
from bothways.policy.effects import distinct
from bothways.policy.screening import Score
from tests import tiny


def side(name: str, **knobs: float) -> InputSide:
    return InputSide(augment={"n_aug": 1, "policy": [[{"name": name, **knobs}]]}, protect={"negators": False})


def judge_words(rows: pa.Table) -> screening.F64:
    """A model that reads the words which tell the label, and is undecided without them."""
    sums = [
        sum(word in tiny.GOOD for word in text.split()) - sum(word in tiny.BAD for word in text.split())
        for text in rows["text"].to_pylist()
    ]
    good = 1 / (1 + np.exp(-3.0 * np.array(sums)))
    return np.stack([1 - good, good], axis=1)


def judged(what: InputSide) -> Score:
    return screening.judge(what, tiny.experiment(), tiny.rows(60, seed=1), tiny.rows(50, 2, 1000), judge_words)


def score(loss: float, fidelity: float, distinct_2: float) -> Score:
    return Score(rows=10, loss=loss, fidelity=fidelity, distinct_1=0.5, distinct_2=distinct_2)


def test_plain_copies_change_nothing_and_halve_what_is_distinct() -> None:
    plain, rows = judged(side("identity")), tiny.rows(50, 2, 1000)
    right = judge_words(rows)[np.arange(50), rows["label"].to_numpy()]
    assert plain.loss == pytest.approx(-np.log(right).mean())
    assert plain.fidelity == 1.0
    assert plain.distinct_2 == pytest.approx(distinct(rows["text"].to_pylist(), 2) / 2)


def test_more_change_is_further_from_the_data_and_more_various() -> None:
    plain, little, much = (judged(side("random_substitution", p=p)) for p in (0.0, 0.1, 0.6))
    assert plain.loss < little.loss < much.loss
    assert plain.fidelity >= little.fidelity > much.fidelity
    assert plain.distinct_2 < little.distinct_2 < much.distinct_2


def test_distinct_counts_neighbours_within_a_row_only() -> None:
    assert distinct(["a b a b", "b a"], 1) == pytest.approx(2 / 6)
    assert distinct(["a b a b", "b a"], 2) == pytest.approx(2 / 4)  # ab ba ab | ba, and not b|b
    assert distinct(["好电影", "好电影"], 2) == pytest.approx(2 / 4)
    assert distinct(["alone"], 2) == 0.0


def test_scores_of_several_models_are_weighed_by_their_rows() -> None:
    one = Score(rows=30, loss=1.0, fidelity=1.0, distinct_1=0.4, distinct_2=0.8)
    other = Score(rows=10, loss=2.0, fidelity=0.6, distinct_1=0.4, distinct_2=0.4)
    both = screening.together([one, other])
    assert both.rows == 40
    assert (both.loss, both.fidelity, both.distinct_2) == pytest.approx((1.25, 0.9, 0.7))


def test_the_lowest_loss_wins_only_among_what_is_various_and_faithful() -> None:
    scores = [
        score(0.1, 1.00, 0.40),  # plain copies: closest, and nothing new
        score(0.2, 0.95, 0.60),
        score(0.3, 0.95, 0.70),
        score(0.2, 0.80, 0.90),  # labels flip
        score(0.9, 0.91, 0.80),
        score(0.15, 0.99, 0.41),
    ]
    assert screening.chosen(scores, 2) == [2, 4]
    assert screening.chosen(scores, 9) == [2, 4]
    assert screening.chosen(scores[:3], 9) == [1, 2]
    assert screening.chosen([], 3) == []


def test_only_the_input_side_of_a_point_is_judged_and_only_where_it_changes_something(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "input.augment.n_aug: [0, 1]\n"
        "input.augment.policy.0.0.name: {choices: [random_swap, random_deletion], when: {input.augment.n_aug: 1}}\n"
        "output.objectives.0.name: [cross_entropy, rdrop]\n"
        "control: {input.augment.n_aug: 0}\n"
    )
    space = spaces.load_space(tmp_path / "space.yaml")
    point = {"input.augment.n_aug": 1, "input.augment.policy.0.0.name": "random_swap"}
    assert screening.input_part({**point, "output.objectives.0.name": "rdrop"}) == point
    assert policy.augments(spaces.apply(tiny.experiment(), point).input)
    assert not policy.augments(spaces.apply(tiny.experiment(), space.first_points(tiny.experiment())[0]).input)


def test_the_table_puts_the_closest_first_and_marks_what_begins() -> None:
    points = [{"input.augment.n_aug": 1}, {"input.augment.n_aug": 2}]
    lines = screening.table(points, [score(0.5, 0.9, 0.7), score(0.25, 1.0, 0.5)], [0]).splitlines()
    assert lines[0].split("\t") == ["start", "rows", "loss", "fidelity", "distinct_1", "distinct_2", "point"]
    assert [line.split("\t")[0] for line in lines[1:]] == ["no", "yes"]
    assert lines[1].endswith("0.25\t1\t0.5\t0.5\tinput.augment.n_aug=2")
