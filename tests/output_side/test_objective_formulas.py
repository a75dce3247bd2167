"""Each objective's formula against a float64 reference in numpy, and its gradient against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bothways.contracts import NO_LABEL, Batch, Outputs
from bothways.registry import OBJECTIVES
from bothways.tasks.classification import Classification

TASK = Classification()
Array = np.ndarray[Any, Any]


class Table:
    """A stand-in for the model: logits are a table the test owns, two views have two tables."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        return self.logits[: len(batch)]


def rows_of(labels: list[int], copies: list[bool]) -> Batch:
    size = len(labels)
    return Batch(
        inputs={"attention_mask": torch.ones(size, 1, dtype=torch.int64)},
        labels=torch.tensor(labels),
        is_copy=torch.tensor(copies),
    )


def log_softmax(logits: Array) -> Array:
    return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


LOGITS = np.random.default_rng(0).normal(size=(8, 3)) * 2
ROWS = rows_of([0, 2, 1, 1], [False, True, True, False])
HARD = -log_softmax(LOGITS[:4])[np.arange(4), [0, 2, 1, 1]]


def numeric_gradient(loss: Callable[[Array], float], at: Array) -> Array:
    """Central differences of `loss` at a table of logits."""
    found = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * 1e-5
            found[place] += sign * loss(moved) / 2e-5
    return found


def reference(name: str, knobs: dict[str, Any], logits: Array) -> float:
    """The definitions of the papers, in numpy."""
    first, labels = log_softmax(logits[:4]), [0, 2, 1, 1]
    hard = -first[np.arange(4), labels]
    if name == "cross_entropy":
        return float((np.array(knobs["class_weights"])[labels] * hard).mean())
    if name == "label_smoothing":
        epsilon = knobs["epsilon"] * (np.array([0, 1, 1, 0]) if knobs.get("augmented_only") else np.ones(4))
        target = np.eye(3)[labels] * (1 - epsilon)[:, None] + epsilon[:, None] / 3
        return float(-(target * first).sum(1).mean())
    if name == "focal":
        return float(((1 - np.exp(-hard)) ** knobs["gamma"] * hard).mean())
    second = log_softmax(logits[4:])
    hard_again = -second[np.arange(4), labels]
    there = (np.exp(first) * (first - second)).sum(1)
    back = (np.exp(second) * (second - first)).sum(1)
    return float((hard + hard_again).mean() / 2 + knobs["alpha"] * ((there + back) / 2).mean())


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("cross_entropy", {"class_weights": [0.5, 1.0, 3.0]}),
        ("label_smoothing", {"epsilon": 0.2}),
        ("label_smoothing", {"epsilon": 0.2, "augmented_only": True}),
        ("rdrop", {"alpha": 3.0}),
        ("focal", {"gamma": 2.0}),
        ("focal", {"gamma": 0.5}),
    ],
)
def test_the_value_and_its_gradient_are_the_papers(name: str, knobs: dict[str, Any]) -> None:
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = OBJECTIVES.build({"name": name, **knobs})(Table(logits), ROWS, TASK)
    assert float(loss.total.detach()) == pytest.approx(reference(name, knobs, LOGITS), rel=1e-12)
    loss.total.backward()
    assert logits.grad is not None
    numeric = numeric_gradient(lambda moved: reference(name, knobs, moved), LOGITS)
    np.testing.assert_allclose(logits.grad.numpy(), numeric, atol=1e-9)


def test_focal_has_a_gradient_where_a_row_is_certain() -> None:
    logits = torch.tensor([[80.0, 0.0, 0.0]], requires_grad=True)
    loss = OBJECTIVES.build({"name": "focal", "gamma": 0.5})(Table(logits), rows_of([0], [False]), TASK)
    loss.total.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


class Two(Table):
    """A table for the training pass and another for the pass without a gradient."""

    def __init__(self, logits: Tensor, inner: Tensor) -> None:
        super().__init__(logits)
        self.table = inner

    def inner(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        return self.table


@pytest.mark.parametrize("progress", [0.2, 0.9])
def test_consistency_is_that_of_the_paper(progress: float) -> None:
    objective = OBJECTIVES.build(
        {"name": "consistency", "strength": 2.0, "temperature": 0.5, "confidence": 0.6, "annealing": "linear"}
    )
    views = tuple(rows_of([NO_LABEL] * 4, [view] * 4) for view in (False, True))
    batch = replace(ROWS, beside={objective.beside: views}, progress=progress)
    before = np.random.default_rng(1).normal(size=(4, 3)) * 2

    def expected(logits: Array) -> float:
        hard = -log_softmax(logits[:4])[np.arange(4), [0, 2, 1, 1]]
        kept = np.exp(-HARD) < progress * (2 / 3) + 1 / 3
        sharp = np.exp(log_softmax(before / 0.5))
        apart = (sharp * (np.log(sharp) - log_softmax(logits[4:]))).sum(1)
        sure = np.exp(log_softmax(before)).max(1) >= 0.6
        assert 0 < sure.sum() < 4
        assert kept.sum() < 4 or progress > 0.5
        return float((kept * hard).mean() + 2.0 * (sure * apart).mean())

    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = objective(Two(logits, torch.tensor(before)), batch, TASK)
    assert float(loss.total.detach()) == pytest.approx(expected(LOGITS), rel=1e-12)
    loss.total.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), numeric_gradient(expected, LOGITS), atol=1e-9)


class Head:
    """A last linear layer without a model: features and weights are the test's."""

    def __init__(self, features: Tensor, weights: Tensor) -> None:
        self.features, self.weights = features, weights

    def outputs(self, batch: Batch, embeddings: Tensor | None = None) -> Outputs:
        return Outputs(self.features @ self.weights.T, self.features, self.weights)


FEATURES = np.random.default_rng(2).normal(size=(4, 5))
WEIGHTS = np.random.default_rng(3).normal(size=(3, 5))
LABELS = [0, 2, 1, 1]


def check(objective: dict[str, Any], value: Callable[[Array, Array], float]) -> None:
    """The loss and its gradients for features and weights are those of the definition."""
    features, weights = (torch.tensor(x, requires_grad=True) for x in (FEATURES, WEIGHTS))
    loss = OBJECTIVES.build(objective)(Head(features, weights), ROWS, TASK)
    assert float(loss.total.detach()) == pytest.approx(value(FEATURES, WEIGHTS), rel=1e-12)
    loss.total.backward()
    assert features.grad is not None and weights.grad is not None
    of_features = numeric_gradient(lambda moved: value(moved, WEIGHTS), FEATURES)
    np.testing.assert_allclose(features.grad.numpy(), of_features, atol=1e-9)
    np.testing.assert_allclose(
        weights.grad.numpy(), numeric_gradient(lambda moved: value(FEATURES, moved), WEIGHTS), atol=1e-9
    )


def test_supervised_contrastive_is_that_of_the_paper_and_a_row_without_its_like_adds_nothing() -> None:
    def value(features: Array, weights: Array) -> float:
        hard = -log_softmax(features @ weights.T)[range(4), LABELS].mean()
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        near = np.exp(unit @ unit.T / 0.2)
        third = -np.log(near[2, 3] / (near[2].sum() - near[2, 2]))  # the third and the fourth row are of one class
        fourth = -np.log(near[3, 2] / (near[3].sum() - near[3, 3]))
        return float(0.3 * hard + 0.7 * (third + fourth) / 4)

    check({"name": "supervised_contrastive", "share": 0.7, "temperature": 0.2}, value)


def test_a_batch_of_one_row_has_no_contrast() -> None:
    features, weights = torch.tensor(FEATURES[:1], requires_grad=True), torch.tensor(WEIGHTS)
    loss = OBJECTIVES.build("supervised_contrastive")(Head(features, weights), rows_of([1], [False]), TASK)
    loss.total.backward()
    assert float(loss.parts["contrastive"]) == 0
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_the_margin_is_one_of_cosines() -> None:
    fixed = np.linalg.norm(WEIGHTS, axis=1)[LABELS] * np.linalg.norm(FEATURES, axis=1)

    def value(features: Array, weights: Array) -> float:
        lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(weights, axis=1)
        cosines = features @ weights.T / lengths
        margin = 0.4 * np.eye(3)[LABELS] * fixed[:, None] / lengths
        return float(-log_softmax(lengths * (cosines - margin))[range(4), LABELS].mean())

    check({"name": "margin", "m": 0.4}, value)


def test_distillation_is_that_of_the_paper_for_an_ensemble() -> None:
    objective = OBJECTIVES.build(
        {"name": "distillation", "alpha": 0.7, "temperature": 3.0, "teachers": ["one", "two"], "digests": ["1", "2"]}
    )
    said = np.random.default_rng(4).normal(size=(2, 4, 3)) * 3
    batch = replace(ROWS, taught=dict(zip(objective.taught_by, torch.tensor(said), strict=True)))

    def value(logits: Array) -> float:
        target = np.exp(log_softmax(said / 3)).mean(0)
        apart = (target * (np.log(target) - log_softmax(logits / 3))).sum(1).mean()
        return float(0.3 * -log_softmax(logits)[range(4), LABELS].mean() + 0.7 * 9 * apart)

    logits = torch.tensor(LOGITS[:4], requires_grad=True)
    loss = objective(Table(logits), batch, TASK)
    assert float(loss.total.detach()) == pytest.approx(value(LOGITS[:4]), rel=1e-12)
    loss.total.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), numeric_gradient(value, LOGITS[:4]), atol=1e-9)
