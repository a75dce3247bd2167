"""The interval covers what it says it covers, and the sentence follows the interval."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.analysis import difference, estimate, verdict
from bothways.results import Estimate


def test_the_interval_covers_the_truth_at_least_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(0)
    truth, covered, runs = 0.3, 0, 400
    for _ in range(runs):  # 3 seeds x 200 rows, both with effects of their own
        table = truth + rng.normal(0, 0.05, (3, 1)) + rng.normal(0, 0.4, (1, 200)) + rng.normal(0, 0.2, (3, 200))
        found = estimate(table)
        covered += found.low <= truth <= found.high
    assert covered / runs >= 0.93


def test_pairing_removes_what_both_arms_share() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random((1, 500)) < 0.5
    control = np.repeat(hard, 3, axis=0)
    treated = control.copy()
    treated[:, :25] = True
    gain = difference(treated, control)
    alone = estimate(treated)
    assert gain.low > 0
    assert gain.high - gain.low < alone.high - alone.low


def test_equal_arms_have_no_gain_and_no_width() -> None:
    same = np.ones((3, 10), dtype=bool)
    assert difference(same, same) == Estimate(mean=0.0, low=0.0, high=0.0)


@pytest.mark.parametrize(
    ("low", "high", "begins"), [(0.01, 0.03, "It helped"), (-0.03, -0.01, "It hurt"), (-0.01, 0.02, "No gain")]
)
def test_the_sentence_follows_the_interval(low: float, high: float, begins: str) -> None:
    assert verdict(Estimate(mean=(low + high) / 2, low=low, high=high), seeds=3).startswith(begins)


def test_one_seed_claims_nothing_and_a_winning_control_is_named() -> None:
    assert verdict(Estimate(mean=0.02, low=0.01, high=0.03), seeds=1).startswith("One seed")
    assert verdict(None, seeds=3).startswith("Nothing the search tried")
