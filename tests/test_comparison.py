"""What is compared with what, and whether the numbers are those of numpy, worked out here once more by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.markdown import Markdown
from scipy import optimize, stats

from bothways.comparison import Setting, arms, compare, markdown, remarks
from bothways.config import Experiment
from bothways.errors import UserError
from bothways.learning_curve import LearningCurve, Worth, sentence, sizes

SWAP = {"augment": {"n_aug": 2, "keep_original": False, "balance": True, "policy": [["random_swap"], ["trivial"]]}}
RDROP = {"objectives": [{"name": "rdrop", "alpha": 2.0}], "trainable": {"name": "last_n", "n": 2}}


def experiment(**parts: Any) -> Experiment:
    return Experiment(**{"seed": 7, "data": {"source": "rows.csv"}, "optim": {"steps": 60, "patience": 2}} | parts)


def table(mean: float, seed: int, rows: int = 300, seeds: int = 5) -> Any:
    """Hits of so many seeds and rows: rows are hard or easy for all arms alike."""
    hard = np.random.default_rng(1).random((1, rows))
    noise = np.random.default_rng(seed + 10).normal(0, 0.08, (seeds, rows))
    return (hard + noise < mean).astype(float)


def by_hand(values: Any) -> tuple[float, float, float]:
    """Mean and interval of crossed random effects: seeds (rows of `values`) and test rows, Satterthwaite's freedom."""
    s, n = values.shape
    grand = sum(map(sum, values.tolist())) / (s * n)
    of_seeds = sum((row.sum() / n - grand) ** 2 for row in values) / (s - 1) / s
    of_rows = sum((column.sum() / s - grand) ** 2 for column in values.T) / (n - 1) / n
    freedom = (of_seeds + of_rows) ** 2 / (of_seeds**2 / (s - 1) + of_rows**2 / (n - 1))
    half = stats.t(freedom).isf(0.025) * math.sqrt(of_seeds + of_rows)
    return grand, grand - half, grand + half


# -- the arms -------------------------------------------------------------------------------------------------------


def test_each_arm_differs_from_the_experiment_in_its_sides_and_in_nothing_else() -> None:
    whole = experiment(
        input={**SWAP, "reconstruct": ["normalize"]},
        output=RDROP,
        model={"prepare": [{"name": "continued_pretraining", "steps": 5}]},
    )
    found = arms(whole)
    assert list(found) == ["none", "copies", "input", "output", "both"]
    assert found["both"] == whole
    for name, arm in found.items():
        spec, theirs = arm.spec(), whole.spec()
        reads, asks = name in ("input", "both"), name in ("output", "both")
        assert (spec["input"] == theirs["input"], arm.model.prepare == whole.model.prepare) == (reads, reads)
        assert (spec["output"] == theirs["output"]) == asks
        assert arm.output.trainable == whole.output.trainable
        if not asks:
            assert [term.spec() for term in arm.output.terms] == [
                {"name": "cross_entropy", "class_weights": [], "weight": 1.0}
            ]
        for part in ("seed", "task", "data", "optim"):
            assert spec[part] == theirs[part]
    copies = found["copies"].input
    assert [[step.transform.name for step in steps] for steps in copies.augment.policy] == [["identity"]]
    assert (copies.augment.n_aug, copies.augment.keep_original, copies.augment.balance) == (2, False, True)
    assert not copies.reconstruct
    assert remarks(whole, found) == ["All arms train `last_n`."]


@pytest.mark.parametrize(
    ("parts", "names", "remark"),
    [
        ({"input": SWAP}, ["none", "copies", "input"], "The output side of this experiment is plain"),
        ({"input": {"reconstruct": ["normalize"]}}, ["none", "input"], "there is no arm of plain copies"),
        ({"output": RDROP}, ["none", "output"], "The input side of this experiment is plain"),
        (
            {"output": {"objectives": [{"name": "cross_entropy", "class_weights": "balanced"}]}},
            ["none", "output"],
            "only its output side",
        ),
        (
            {"input": SWAP, "output": {"objectives": [{"name": "consistency"}]}},
            ["none", "copies", "input", "output", "both"],
            "unchanged",
        ),
    ],
)
def test_a_plain_side_means_fewer_arms_and_is_named(parts: Any, names: list[str], remark: str) -> None:
    found = arms(experiment(**parts))
    assert list(found) == names
    assert any(remark in said for said in remarks(experiment(**parts), found))


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"input": {"augment": {"n_aug": 0, "policy": [["random_swap"]]}}},
        {"output": {"objectives": [{"name": "rdrop", "alpha": 0.0}], "trainable": "head"}},
    ],
)
def test_an_experiment_without_sides_is_refused(parts: Any) -> None:
    with pytest.raises(UserError, match=r"nothing to compare: .*best\.yaml"):
        arms(experiment(**parts))


# -- the numbers ----------------------------------------------------------------------------------------------------


def test_gains_and_synergy_are_those_of_numpy() -> None:
    hits = {name: table(mean, at) for at, (name, mean) in enumerate(
        {"none": 0.70, "copies": 0.71, "input": 0.74, "output": 0.75, "both": 0.82}.items()
    )}  # fmt: skip
    found = compare(hits, {})

    def same(estimate: Any, values: Any) -> bool:
        return (estimate.mean, estimate.low, estimate.high) == pytest.approx(by_hand(values), abs=1e-12)

    assert same(found.synergy, hits["both"] - hits["input"] - hits["output"] + hits["none"])
    for name, arm in found.arms.items():
        assert same(arm.test, hits[name])
        assert arm.by_seed == pytest.approx([sum(row) / 300 for row in hits[name].tolist()])
        assert set(arm.over) == {"none": set(), "copies": {"none"}}.get(name, {"none", "copies"})
        assert all(same(gain, hits[name] - hits[other]) for other, gain in arm.over.items())
    assert (dict(found.curve), dict(found.worth)) == ({}, {})
    one_way = compare({name: hits[name] for name in ("none", "output")}, {})
    assert one_way.synergy is None
    assert one_way.arms["output"] == found.arms["output"].__class__(
        by_seed=found.arms["output"].by_seed,
        test=found.arms["output"].test,
        over={"none": found.arms["output"].over["none"]},
    )


def test_the_worth_in_labels_is_where_numpy_finds_it() -> None:
    points = {100: table(0.60, 0), 150: table(0.66, 1), 200: table(0.70, 2), 400: table(0.80, 3)}
    arm = table(0.72, 4)
    found = LearningCurve.of(points).worth(arm)

    logs, means = np.log(list(points)), [hits.mean() for hits in points.values()]
    assert means == sorted(means)
    assert found.more == pytest.approx(np.exp(np.interp(arm.mean(), means, logs)) - 100)

    def gap(log: float) -> tuple[float, float, float]:
        """Of the arm to the curve there: each cell of the tables interpolated by itself."""
        plain = np.array(
            [
                [np.interp(log, logs, [hits[s, n] for hits in points.values()]) for n in range(arm.shape[1])]
                for s in range(arm.shape[0])
            ]
        )
        return by_hand(arm - plain)

    middle = math.log(found.more + 100)
    low = math.exp(optimize.brentq(lambda log: gap(log)[1], logs[0], middle, xtol=1e-3)) - 100
    high = math.exp(optimize.brentq(lambda log: gap(log)[2], middle, logs[-1], xtol=1e-3)) - 100
    assert (found.reading, found.low, found.high) == ("read", pytest.approx(low, abs=4), pytest.approx(high, abs=4))
    assert 0 < low < found.more < high < 300


def test_points_that_fall_are_pooled_so_that_the_curve_does_not() -> None:
    points = {100: table(0.60, 0), 150: table(0.72, 1), 200: table(0.68, 2), 400: table(0.80, 3)}
    curve = LearningCurve.of(points)
    means = [curve.at(rows).mean() for rows in points]
    both = (points[150].mean() + points[200].mean()) / 2
    assert means == pytest.approx([points[100].mean(), both, both, points[400].mean()])
    assert curve.reaches(both) == pytest.approx(150)  # the fewest rows
    grid = [curve.at(rows).mean() for rows in np.linspace(100, 400, 50)]
    assert (np.diff(grid) >= -1e-12).all()


@pytest.mark.parametrize(
    ("arm", "reading", "says"),
    [
        (0.40, "below", "worth no more labelled examples, it does worse than 100 plain rows."),
        (0.95, "above", "not readable beyond the curve, it does better than 400 plain rows, at least 300 by"),
        (0.60, "read", "0, so perhaps nothing, to"),
        (0.80, "read", "to more than the curve shows (300)"),
    ],
)
def test_what_the_curve_cannot_say_is_said(arm: float, reading: str, says: str) -> None:
    curve = LearningCurve.of({100: table(0.595, 0), 400: table(0.805, 3)})
    found = curve.worth(table(arm, 4))
    assert found.reading == reading
    assert (found.more is not None) == (reading == "read")
    assert says in sentence("both", found)


def test_a_flat_curve_and_an_interval_as_wide_as_the_curve_give_no_number() -> None:
    flat = LearningCurve.of({100: table(0.70, 0), 400: table(0.70, 1)}).worth(table(0.71, 2))
    assert flat == Worth(reading="flat", base=100, end=400)
    assert "the curve is flat" in sentence("both", flat)
    others = np.tile(np.random.default_rng(0).permutation(300) < 210, (5, 1))  # 70 % too, but of other rows
    wide = LearningCurve.of({100: table(0.67, 0), 400: table(0.73, 1)}).worth(others)
    assert wide == Worth(reading="wide", base=100, end=400)
    assert "holds the whole curve from 100 to 400 rows" in sentence("both", wide)


@pytest.mark.parametrize(
    ("base", "available", "found"),
    [
        (300, 9_000, [450, 600, 1200]),
        (300, 700, [450, 600, 700]),
        (300, 500, [450, 500]),
        (300, 370, []),
        (300, 300, []),
        (1, 2, [2]),
    ],
)
def test_the_curve_has_the_points_that_the_data_have(base: int, available: int, found: list[int]) -> None:
    assert sizes(base, available) == found


@pytest.mark.slow
def test_the_interval_of_the_worth_covers_the_truth_about_as_often_as_it_claims() -> None:
    rng, covered, runs = np.random.default_rng(5), 0, 80

    def hits(skill: float, hard: Any) -> Any:  # the chance of a hit is straight in the logarithm of the rows
        easy = np.clip(skill + hard + rng.normal(0, 0.01, (5, 1)), 0, 1)
        return (rng.random((5, hard.size)) < easy).astype(float)

    for _ in range(runs):
        hard = rng.normal(0, 0.1, 400)
        curve = {rows: hits(0.5 + 0.1 * math.log2(rows / 100), hard) for rows in (100, 150, 200, 400)}
        found = LearningCurve.of(curve).worth(hits(0.6, hard))  # as good as 200 rows
        covered += (found.low or 0) <= 100 <= (found.high or 300)
    assert covered / runs >= 0.9


# -- in words -------------------------------------------------------------------------------------------------------


def page(one_side: float, both: float) -> str:
    means = {"none": 0.70, "copies": 0.70, "input": one_side, "output": one_side, "both": both}
    hits = {name: table(mean, at) for at, (name, mean) in enumerate(means.items())}
    curve = {300: hits["none"], 450: table(0.74, 8), 600: table(0.78, 9)}
    whole = experiment(input=SWAP, output=RDROP)
    found = arms(whole)
    setting = Setting(
        title="sentiment-compare-001",
        experiment=whole,
        seeds=tuple(range(2007, 2012)),
        rows=300,
        remarks=tuple(remarks(whole, found)),
    )
    return markdown(compare(hits, curve), setting)


def test_the_page_says_what_came_of_it_and_fits_a_terminal() -> None:
    helped, none = page(0.72, 0.78), page(0.70, 0.70)
    assert "It helped: +" in helped
    assert "worth about" in helped
    assert "No gain that can be told from chance" in none
    assert "None that can be told from chance" in none
    assert "random_swap" in helped and "rdrop` (alpha 2)" in helped and "60 optimiser steps" in helped
    console = Console(width=100, no_color=True)
    with console.capture() as said:
        console.print(Markdown(helped))
    lines = said.get().splitlines()
    assert max(map(len, lines)) <= 100
    for arm in ("none", "copies", "input", "output", "both"):  # nothing wraps: each is one line of the table
        assert any(line.startswith(f" {arm} ") and " % [" in line and line.rstrip()[-1] == "]" for line in lines), arm
    assert sum("2007" in line for line in lines) == 1
