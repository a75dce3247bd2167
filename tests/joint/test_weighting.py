"""How terms are weighed: each method against its paper, and in a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bothways.edges.local import OneWorker
from bothways.registry import WEIGHTINGS
from bothways.training.workspace import Workspace
from tests import tiny

STATED = [1.0, 0.5, 2.0]


def weigher(name: str, shared: torch.Tensor, **knobs: Any) -> Any:
    return WEIGHTINGS.build({"name": name, **knobs}).weigher(STATED, shared, OneWorker())


def losses(shared: torch.Tensor) -> list[torch.Tensor]:
    """Three losses of one matrix whose gradients are known: 2 W, ones, and W's sign."""
    return [(shared**2).sum(), shared.sum() + 10, shared.abs().sum()]


def test_a_weighted_sum_has_the_weights_that_are_stated() -> None:
    shared = torch.randn(2, 3, requires_grad=True)
    fixed = weigher("weighted_sum", shared)
    weighed = [fixed.weigh(number, loss, 0.25) for number, loss in enumerate(losses(shared))]
    expected = [weight * 0.25 * loss for weight, loss in zip(STATED, losses(shared), strict=True)]
    assert all(torch.equal(one, other) for one, other in zip(weighed, expected, strict=True))
    assert not list(fixed.own.parameters())


def test_uncertainty_is_the_papers_formula_and_its_variance_learns() -> None:
    shared = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    learned = weigher("uncertainty", shared)
    log_variance = learned.own["log_variance"]
    assert learned.weights() == STATED
    with torch.no_grad():
        log_variance.copy_(torch.tensor([0.5, -1.0, 2.0]))
    found = losses(shared)
    total = sum(learned.weigh(number, loss, 0.5) for number, loss in enumerate(found))
    s, plain = np.array([0.5, -1.0, 2.0]), np.array([float(loss.detach()) for loss in found])
    assert float(total.detach()) == pytest.approx(float((np.array(STATED) * 0.5 * (np.exp(-s) * plain + s / 2)).sum()))
    total.backward()
    gradient = np.array(STATED) * 0.5 * (0.5 - np.exp(-s) * plain)
    np.testing.assert_allclose(log_variance.grad.numpy(), gradient)
    np.testing.assert_allclose(learned.weights(), np.array(STATED) * np.exp(-s))


def test_gradnorm_moves_the_weights_as_the_paper_says() -> None:
    torch.manual_seed(0)
    shared = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    balanced = weigher("gradnorm", shared, alpha=0.7, lr=0.1)
    weights, first = np.array(STATED), None
    for _ in range(3):
        found = losses(shared)
        for number, loss in enumerate(found):
            balanced.weigh(number, loss, 0.25).backward()
        again = losses(shared)
        for number, loss in enumerate(again):  # the rest of the batch, as another slice
            balanced.weigh(number, loss, 0.75).backward()
        balanced.settle()
        matrix = shared.detach().numpy()
        lengths = np.linalg.norm([(2 * matrix).ravel(), np.ones(6), np.sign(matrix).ravel()], axis=1)
        value = np.array([float(loss.detach()) for loss in found])
        first = value if first is None else first
        slowness = value / first / (value / first).mean()
        size = weights * lengths
        weights = weights - 0.1 * lengths / size.mean() * np.sign(size - size.mean() * slowness**0.7)
        weights = np.maximum(weights, 0.01 * np.array(STATED))
        weights *= sum(STATED) / weights.sum()
        np.testing.assert_allclose(balanced.weights(), weights)
        with torch.no_grad():
            shared -= 0.05 * shared.grad
        shared.grad = None


def test_gradnorm_brings_gradients_of_unlike_length_together() -> None:
    shared = torch.randn(4, 4, requires_grad=True)
    balanced = WEIGHTINGS.build({"name": "gradnorm", "alpha": 0.0, "lr": 0.02}).weigher([1.0, 1.0], shared, OneWorker())
    for _ in range(400):
        for number, loss in enumerate([(10 * shared).sum(), shared.sum()]):
            balanced.weigh(number, loss, 1.0)
        balanced.settle()
    big, small = balanced.weights()
    assert small / big == pytest.approx(10, rel=0.5)
    assert big + small == pytest.approx(2.0)


def test_gradnorm_takes_losses_below_zero() -> None:
    """Of two terms with like gradients, whatever the second one's loss is, the first learns faster than it began."""
    shared = torch.ones(4, requires_grad=True)
    for second in (-5.0, 0.0, 5.0):
        balanced = WEIGHTINGS.build("gradnorm").weigher([1.0, 1.0], shared, OneWorker())
        for left in (3.0, 1.0, 1.0):
            for number, value in enumerate((left, second)):
                balanced.weigh(number, shared.sum() - 4 + value, 1.0)
            balanced.settle()
        fast, slow = balanced.weights()
        assert 0.9 < fast < 1 < slow < 1.1


def test_a_variance_that_has_reached_its_limit_can_return() -> None:
    learned = WEIGHTINGS.build({"name": "uncertainty", "limit": 1.0}).weigher([1.0], torch.ones(1), OneWorker())
    optimiser = torch.optim.SGD(learned.own.parameters(), lr=1.0)
    for loss, weight in ((1e-6, np.exp(1)), (1e3, np.exp(-1))):
        for _ in range(4):
            optimiser.zero_grad()
            learned.weigh(0, torch.tensor(loss), 1.0).backward()
            optimiser.step()
        assert learned.weights() == pytest.approx([weight])


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTINGS.names())
def test_a_training_records_its_weights_and_resumes_to_the_last_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bothways.training.trial.CHECKPOINT_SHARE", 1e9)  # a checkpoint at every report
    workspace = Workspace()
    what = tiny.experiment(
        output={"objectives": ["cross_entropy", {"name": "rdrop", "weight": 0.5}], "weighting": {"name": name}},
        optim={"steps": 6, "evaluate_every": 2, "accumulate": 2},
    )
    whole = [report.metrics for report in tiny.trial(what, tmp_path / "whole", workspace).reports()]
    reports = tiny.trial(what, tmp_path / "broken", workspace).reports()
    next(reports), next(reports)
    reports.close()
    again = list(tiny.trial(what, tmp_path / "broken", workspace).reports())
    last = again[-1].metrics
    assert {k: v for k, v in last.items() if not k.startswith("time/")} == {
        k: v for k, v in whole[-1].items() if not k.startswith("time/")
    }
    weights = [last["train/cross_entropy/weight"], last["train/rdrop/weight"]]
    assert (weights == [1.0, 0.5]) == (name == "weighted_sum")
