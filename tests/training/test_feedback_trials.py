"""Trials that learn from feedback and from their own answers, from a file to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bothways.data import Dataset
from tests import tiny

SOURCE = {"feedback": {"source": "made in the test"}}


def last(what: Any, directory: Path, data: Dataset) -> dict[str, float]:
    *_, report = tiny.trial(what, directory, data=data).reports()
    return dict(report.metrics)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        {"name": "preference", "beta": 0.5, "supervised": 0.0, "per_row": 2},
        {"name": "language_feedback", "mode": "imitation", "supervised": 0.0, "per_row": 2},
        {"name": "language_feedback", "mode": "reward", "supervised": 0.0, "per_row": 2, "kl": 0.0},
    ],
    ids=["preference", "imitation", "reward"],
)
def test_feedback_alone_teaches_a_classifier(objective: dict[str, Any], tmp_path: Path) -> None:
    optim = {"steps": 120, "lr": 5e-3, "evaluate_every": 120}
    what = tiny.experiment(output={"objectives": [objective]}, data=SOURCE, optim=optim)
    assert last(what, tmp_path / "trial", tiny.dataset(feedback=60))["selection/accuracy"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_every_objective_on_answers_trains_models_that_write(family: str, tmp_path: Path) -> None:
    task = {"t5": {"name": "seq2seq", "target_length": 5}, "gpt2": {"name": "causal_lm", "target_length": 4}}[family]
    terms = [
        {"name": "policy_gradient", "reward": {"name": "rouge"}, "draws": 2},
        {"name": "policy_gradient", "method": "self_critical", "reward": "f1", "draws": 1},
        {"name": "preference"},
        *({"name": "language_feedback", "mode": mode, "draws": 2} for mode in ("imitation", "hindsight", "reward")),
    ]
    optim = {"steps": 6, "evaluate_every": 3, "accumulate": 2}
    what = tiny.experiment(family, task=task, output={"objectives": terms}, data=SOURCE, optim=optim)
    first, again = (last(what, tmp_path / name, tiny.answered(feedback=40)) for name in ("first", "again"))
    timeless = [{k: v for k, v in found.items() if not k.startswith("time/")} for found in (first, again)]
    assert timeless[0] == timeless[1]
    assert {f"train/language_feedback-{n}/{part}" for n, part in ((3, "feedback"), (5, "reward"))} <= set(first)
