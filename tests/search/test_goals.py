"""What a search is after: bounds, the Pareto front, and what is said where nothing keeps the bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bothways.config import Pipeline
from bothways.config.goals import TEXT, Bound, Goals
from bothways.config.yaml_io import load_pipeline
from bothways.errors import UserError
from bothways.policy import effects as text_effects
from bothways.report import front, markdown
from bothways.results import Arm, Estimate, SweepResult

ACCURACY, VARIETY, LOST = "selection/accuracy", "text/distinct_2", "text/protected_lost"
BOTH = Goals(metric=ACCURACY, mode="max", also={VARIETY: "max"}, bounds={LOST: Bound(max=0)})


def trial(accuracy: float, variety: float = 0.5, lost: float = 0.0) -> dict[str, float]:
    return {ACCURACY: accuracy, VARIETY: variety, LOST: lost, "train/loss": 1.0}


def pipeline(**search: Any) -> Pipeline:
    return Pipeline.model_validate(
        {"name": "x", "experiment": {"data": {"source": "a"}}, "search": {"space": "s", **search}}
    )


def test_the_front_holds_what_none_dominates_and_begins_with_the_best_by_the_metric() -> None:
    trials = [
        trial(0.7, 0.9),
        trial(0.9, 0.5),
        trial(0.8, 0.5),  # beaten by the one before
        trial(0.8, 0.7),
        trial(0.7, 0.9),  # as good as the first: neither beats the other
        trial(0.99, 0.99, lost=0.1),  # breaks the bound
    ]
    assert BOTH.front(trials) == [1, 3, 0, 4]
    assert BOTH.front(trials[-1:]) == BOTH.front([]) == []
    assert Goals(metric=ACCURACY, mode="max").front(trials) == [5, 1, 2, 3, 0, 4]
    assert Goals(metric=ACCURACY, mode="min").front(trials) == [0, 4, 2, 3, 1, 5]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12))
def test_no_trial_of_the_front_is_dominated_and_every_other_is(points: list[tuple[int, int, int]]) -> None:
    goals = Goals(metric="a", mode="max", also={"b": "min", "c": "max"})
    found = set(goals.front([dict(zip("abc", map(float, point), strict=True)) for point in points]))
    signed = np.array([(a, -b, c) for a, b, c in points]).reshape(-1, 3)
    for at, one in enumerate(signed):
        beaten = any((other >= one).all() and (other > one).any() for other in signed)
        assert beaten == (at not in found)


def test_a_bound_is_kept_at_its_ends_and_broken_by_what_is_missing() -> None:
    assert Bound(min=0.9).excess(0.9) == Bound(max=0).excess(0.0) == 0
    assert Bound(min=0.9).excess(0.8) == pytest.approx(0.1)
    assert Bound(min=1, max=2).excess(2.5) == 0.5
    assert Bound(min=1, max=2).excess(1.5) == -0.5
    assert BOTH.kept(trial(0.1))
    assert not BOTH.kept(trial(0.9, lost=1e-9))
    assert not BOTH.kept({ACCURACY: 0.9})
    assert str(Bound(min=0.5, max=1)) == "at least 0.5 and at most 1"


def test_only_a_broken_bound_on_copies_is_hopeless() -> None:
    goals = Goals(metric=ACCURACY, mode="max", bounds={LOST: Bound(max=0), "selection/macro_f1": Bound(min=0.5)})
    assert goals.hopeless({LOST: 0.1, "selection/macro_f1": 0.9})
    assert not goals.hopeless({LOST: 0.0, "selection/macro_f1": 0.1})
    assert not goals.hopeless({})
    assert goals.texts
    assert not Goals(metric=ACCURACY, mode="max").texts


def test_where_nothing_keeps_the_bounds_it_is_said_what_came_nearest() -> None:
    said = BOTH.unmet({"001-a": trial(0.9, lost=0.5), "002-b": trial(0.1, lost=0.25)})
    assert said == (
        "No trial kept the constraints (text/protected_lost at most 0), so the control stands. "
        "The nearest was 002-b with text/protected_lost 0.25."
    )
    assert BOTH.unmet({}).endswith("so the control stands.")


def test_goals_are_read_from_a_file_with_the_metrics_own_directions() -> None:
    goals = pipeline(
        metric="log_loss",
        constraints={"text/fidelity": {"min": 0.9}, "cost/tokens": {"max": 1e6}},
        also=[{"metric": "text/self_bleu"}, {"metric": "text/changed", "direction": "max"}],
    ).goals()
    assert (goals.metric, goals.mode) == ("selection/log_loss", "min")
    assert goals.also == {"text/self_bleu": "min", "text/changed": "max"}
    assert goals.names == ("selection/log_loss", "text/self_bleu", "text/changed", "text/fidelity", "cost/tokens")
    plain = pipeline()
    assert plain.goals() == Goals(metric=ACCURACY, mode="max")
    assert Pipeline.model_validate(plain.model_dump(mode="json")) == plain


@pytest.mark.parametrize(
    ("search", "complaint"),
    [
        (
            {"constraints": {"text/fidelty": {"min": 1}}},
            "search.constraints: unknown metric 'text/fidelty': did you mean",
        ),
        ({"constraints": {"fidelity": {"min": 1}}}, "did you mean 'text/fidelity'?"),
        ({"constraints": {"text/fidelity": {}}}, "a constraint is {min: …}, {max: …} or both"),
        ({"constraints": {"text/fidelity": {"min": 1, "max": 0}}}, "nothing is at least 1 and at most 0"),
        ({"constraints": {"text/fidelity": {"least": 1}}}, "Extra inputs are not permitted"),
        ({"also": [{"metric": "text/distinct2"}]}, "search.also: unknown metric 'text/distinct2': did you mean"),
        ({"also": [{"metric": "text/changed"}]}, "neither more nor less text/changed is better by itself"),
        ({"also": [{"metric": ACCURACY}]}, f"{ACCURACY} is an objective already"),
        ({"also": [{"metric": "text/perplexity"}]}, "text/perplexity needs a language model: set search.perplexity"),
    ],
)
def test_what_is_wrong_with_a_goal_is_said(search: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as error:
        pipeline(**search)
    assert complaint in str(error.value)


def test_a_file_and_the_command_line_can_bound_a_metric_and_mistakes_there_name_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    bounds = "constraints: {text/fidelity: {min: 0.9}}"
    file.write_text(f"name: x\nexperiment: {{data: {{source: a}}}}\nsearch:\n  space: s\n  {bounds}\n")
    found = load_pipeline(file, ["search.constraints.text/fidelity.max=1"]).search
    assert found is not None
    assert found.constraints == {"text/fidelity": Bound(min=0.9, max=1)}
    file.write_text(file.read_text().replace("min:", "mini:"))
    with pytest.raises(UserError, match=r"x\.yaml:5: .*unknown key 'mini': did you mean 'min'\?"):
        load_pipeline(file, [])


def test_every_metric_of_copies_that_a_goal_may_name_is_one_that_is_told() -> None:
    told = {*text_effects.Effects().metrics(), *text_effects.variety([])}
    judged = {"fidelity", "perplexity", "perplexity_ratio"}
    assert {name.removeprefix("text/") for name in TEXT} == told | judged


def test_the_front_is_in_the_report_and_a_table_of_its_own() -> None:
    arm = Arm(
        name="control", trial_id="000-control", scores={"accuracy": (0.8,)}, test=Estimate(mean=0.8, low=0.7, high=0.9)
    )
    what: dict[str, Any] = {
        **{
            "sweep": "s",
            "directory": "d",
            "tracking_uri": "u",
            "trials": 3,
            "stopped": 1,
            "best": "001-a",
            "knobs": {},
        },
        **{"arms": (arm,), "gain": None, "steps": 10, "metric": "accuracy", "sentence": "Said."},
    }
    rows = ({"trial": "001-a", ACCURACY: 0.91234, VARIETY: 0.5}, {"trial": "002-b", ACCURACY: 0.8, VARIETY: 0.75})
    found = SweepResult(**what, front=rows)
    assert front(found) == f"trial\t{ACCURACY}\t{VARIETY}\n001-a\t0.9123\t0.5\n002-b\t0.8\t0.75\n"
    assert "2 trials that no other one is as good as" in markdown(found)
    assert "| 001-a | 0.9123 | 0.5 |" in markdown(found)
    assert markdown(SweepResult(**what)).endswith("Said.\n")
