"""A sweep's result as text: shares in per cent, other numbers as they are."""

from __future__ import annotations

from typing import Any

import pytest

from bothways.analysis import verdict
from bothways.report import markdown
from bothways.results import Arm, Estimate, SweepResult

ONE = Estimate(mean=0.5, low=0.4, high=0.6)


def page(metric: str, score: str, **scores: tuple[float, ...]) -> str:
    arm = Arm(name="control", trial_id="t-1", scores=scores, test=ONE)
    plain: dict[str, Any] = {
        "sweep": "s",
        "directory": "d",
        "tracking_uri": "u",
        "trials": 2,
        "stopped": 1,
        "best": "b",
    }
    return markdown(
        SweepResult(
            **plain,
            knobs={},
            arms=(arm,),
            gain=None,
            steps=9,
            metric=metric,
            sentence=verdict(ONE, 2, score),
            score=score,
        )
    )


@pytest.mark.parametrize(
    ("metric", "score", "scores", "titles", "cells"),
    [
        ("accuracy", "accuracy", {"accuracy": (0.5, 0.25)}, "test accuracy by seed, %", "50.0 · 25.0"),
        ("rmse", "1 - |error| / scale", {"mae": (9.0,), "rmse": (0.123456,)}, "test rmse by seed", "0.1235"),
        ("rouge1", "accuracy of a target's tokens", {"log_loss": (3.0,)}, "arm | trial", "`t-1` | 50.0 %"),
        (
            "log_loss",
            "accuracy",
            {"accuracy": (0.5,), "log_loss": (0.7,)},
            "test accuracy by seed, % | test log_loss by seed",
            "50.0 | 0.7",
        ),
    ],
)
def test_what_is_shown_is_what_the_task_has(metric: str, score: str, scores: Any, titles: str, cells: str) -> None:
    found = page(metric, score, **scores)
    assert f"{titles} | {score} [95 % interval] |" in found
    assert f"{cells} |" in found or f"{cells} [" in found
    assert f"It helped: +50.0 points of {score}" in found
