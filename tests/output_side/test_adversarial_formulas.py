"""Adversarial objectives and mixup on a model that is linear in its embeddings, against numpy in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from bothways.contracts import Batch
from bothways.registry import OBJECTIVES
from bothways.tasks.classification import Classification

TASK = Classification()
Array = np.ndarray[Any, Any]


def log_softmax(logits: Array) -> Array:
    return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


class Linear:
    """A stand-in whose logits are linear in the embeddings, so that the worst direction is known in closed form."""

    def __init__(self, embeddings: Tensor, weights: Tensor) -> None:
        self.embeddings, self.weights = embeddings, weights

    def embed(self, batch: Batch) -> Tensor:
        return self.embeddings

    def inner(self, batch: Batch, embeddings: Tensor) -> Tensor:
        self.looked_at = embeddings.detach()
        return embeddings.flatten(1) @ self.weights

    def parameters(self) -> list[Tensor]:
        return [self.weights]

    def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        self.asked = batch
        self.seen = (self.embeddings if embeddings is None else embeddings).detach()
        return self.inner(batch, self.embeddings if embeddings is None else embeddings)


def linear() -> tuple[Linear, Batch]:
    draw = torch.Generator().manual_seed(1)
    embeddings = torch.randn(3, 2, 4, generator=draw, dtype=torch.float64)
    mask = torch.tensor([[1, 1], [1, 0], [1, 1]])
    batch = Batch(
        inputs={"attention_mask": mask}, labels=torch.tensor([0, 1, 1]), is_copy=torch.zeros(3, dtype=torch.bool)
    )
    weights = torch.randn(8, 2, generator=draw, dtype=torch.float64)
    return Linear(embeddings, weights.requires_grad_()), batch


def worst_direction(stub: Linear, batch: Batch, at: Array) -> Array:
    """Gradient of cross-entropy with respect to the embeddings, (p - onehot) W^T, on real tokens, at unit length."""
    weights = stub.weights.detach().numpy()
    p = np.exp(log_softmax(at.reshape(3, 8) @ weights))
    gradient = ((p - np.eye(2)[batch.labels.numpy()]) @ weights.T).reshape(3, 2, 4)
    gradient = gradient * batch.inputs["attention_mask"].numpy()[..., None]
    return np.asarray(gradient / np.linalg.norm(gradient.reshape(3, 8), axis=1)[:, None, None])


def test_fgm_goes_lr_along_the_gradient_and_leaves_padding_alone() -> None:
    stub, batch = linear()
    loss = OBJECTIVES.build({"name": "adversarial", "lr": 0.3, "beta": 0.5})(stub, batch, TASK)
    clean = stub.embeddings.numpy()
    expected = clean + 0.3 * worst_direction(stub, batch, clean)
    np.testing.assert_allclose(stub.seen[3:].numpy(), expected, atol=1e-12)
    assert torch.equal(stub.seen[:3], stub.embeddings)
    hard = [
        -log_softmax(x.reshape(3, 8) @ stub.weights.detach().numpy())[range(3), batch.labels] for x in (clean, expected)
    ]
    assert float(loss.total.detach()) == pytest.approx(hard[0].mean() + 0.5 * hard[1].mean(), rel=1e-12)
    assert hard[1].mean() > hard[0].mean()


def test_pgd_takes_its_steps_and_stays_in_its_ball() -> None:
    stub, batch = linear()
    knobs = {"method": "pgd", "steps": 3, "lr": 0.3, "max_norm": 0.5}
    OBJECTIVES.build({"name": "adversarial", **knobs})(stub, batch, TASK)
    clean = stub.embeddings.numpy()
    found = np.zeros_like(clean)
    for _ in range(3):
        found = found + 0.3 * worst_direction(stub, batch, clean + found)
        norms = np.linalg.norm(found.reshape(3, 8), axis=1)[:, None, None]
        found = found * np.minimum(1, 0.5 / norms)
    np.testing.assert_allclose(stub.seen[3:].numpy() - clean, found, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found.reshape(3, 8), axis=1), 0.5)


def test_a_random_start_has_its_size_and_is_zero_on_padding() -> None:
    stub, batch = linear()
    torch.manual_seed(0)
    OBJECTIVES.build({"name": "adversarial", "method": "pgd", "lr": 1e-9, "init_mag": 0.6})(stub, batch, TASK)
    start = (stub.seen[3:] - stub.embeddings).numpy()
    assert not start[1, 1].any()
    assert 0 < np.abs(start[0]).max() <= 0.6 / np.sqrt(2 * 4) + 1e-8
    assert np.abs(start[1, 0]).max() <= 0.6 / np.sqrt(4) + 1e-8


def test_fgm_refuses_what_belongs_to_pgd() -> None:
    with pytest.raises(ValidationError, match="method: pgd"):
        OBJECTIVES.build({"name": "adversarial", "method": "fgm", "steps": 3})


def numeric(function: Callable[[Array], float], at: Array) -> Array:
    """The gradient of `function` by central differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * 1e-5
            found[place] += sign * function(moved) / 2e-5
    return found


def test_freelb_is_the_mean_over_its_steps_in_value_and_gradient() -> None:
    stub, batch = linear()
    knobs = {"method": "freelb", "steps": 3, "lr": 0.3, "max_norm": 0.5}
    loss = OBJECTIVES.build({"name": "adversarial", **knobs})(stub, batch, TASK)
    (2.5 * loss.total).backward()  # as a term of weight 2.5
    clean, labels = stub.embeddings.numpy(), batch.labels.numpy()
    found, seen = np.zeros_like(clean), []
    for _ in range(3):
        seen.append(clean + found)
        found = found + 0.3 * worst_direction(stub, batch, clean + found)
        norms = np.linalg.norm(found.reshape(3, 8), axis=1)[:, None, None]
        found = found * np.minimum(1, 0.5 / norms)

    def mean(weights: Array) -> float:
        return float(np.mean([-log_softmax(x.reshape(3, 8) @ weights)[range(3), labels].mean() for x in seen]))

    np.testing.assert_allclose(stub.seen.numpy(), seen[-1], atol=1e-12)
    assert float(loss.total.detach()) == pytest.approx(mean(stub.weights.detach().numpy()), rel=1e-12)
    assert stub.weights.grad is not None
    np.testing.assert_allclose(
        stub.weights.grad.numpy(), 2.5 * numeric(mean, stub.weights.detach().numpy().copy()), atol=1e-9
    )


def divergence(p: Array, q: Array) -> float:
    """Mean KL of two tables of log probabilities."""
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def noise(stub: Linear, batch: Batch) -> Array:
    """The start that the objective draws after `torch.manual_seed(4)`."""
    torch.manual_seed(4)
    drawn = torch.randn_like(stub.embeddings)
    torch.manual_seed(4)
    return np.asarray(drawn.numpy() * batch.inputs["attention_mask"].numpy()[..., None])


def away(stub: Linear, batch: Batch, found: Array) -> Array:
    """Gradient of KL(p || q) with respect to the perturbation, (q - p) W^T, on real tokens."""
    weights, clean = stub.weights.detach().numpy(), stub.embeddings.numpy()
    p, q = (np.exp(log_softmax(x.reshape(3, 8) @ weights)) for x in (clean, clean + found))
    return np.asarray(((q - p) @ weights.T).reshape(3, 2, 4) * batch.inputs["attention_mask"].numpy()[..., None])


def check_divergence(stub: Linear, batch: Batch, knobs: dict[str, Any], found: Array, symmetric: bool) -> None:
    """The objective perturbs by `found` and its loss and gradient are those of the definition."""
    loss = OBJECTIVES.build({"name": "adversarial", "beta": 0.7, **knobs})(stub, batch, TASK)
    np.testing.assert_allclose((stub.looked_at - stub.embeddings).numpy(), found, atol=1e-9)
    assert torch.equal(stub.seen, stub.embeddings)
    loss.total.backward()
    clean, weights = stub.embeddings.numpy(), stub.weights.detach().numpy().copy()
    known = log_softmax(clean.reshape(3, 8) @ weights)

    def value(weights: Array) -> float:
        p, q = (log_softmax(x.reshape(3, 8) @ weights) for x in (clean, clean + found))
        apart = divergence(p, q) + divergence(q, p) if symmetric else divergence(known, q)
        return float(-p[range(3), batch.labels].mean() + 0.7 * apart)

    assert float(loss.total.detach()) == pytest.approx(value(weights), rel=1e-9)
    assert float(loss.parts["divergence"]) > 1e-3
    assert stub.weights.grad is not None
    np.testing.assert_allclose(stub.weights.grad.numpy(), numeric(value, weights), atol=1e-7)


@pytest.mark.parametrize("most", [0.0, 0.15])
def test_smart_climbs_the_divergence_and_is_smooth_both_ways(most: float) -> None:
    stub, batch = linear()
    found = 0.05 * noise(stub, batch)
    for _ in range(2):
        uphill = away(stub, batch, found)
        found = found + 0.2 * uphill / (np.abs(uphill).max(-1, keepdims=True) + 1e-6)
        found = np.clip(found, -most, most) if most else found
    knobs = {"method": "smart", "steps": 2, "lr": 0.2, "init_mag": 0.05, "max_norm": most}
    check_divergence(stub, batch, knobs, found, symmetric=True)


def test_vat_finds_its_direction_by_power_iteration_and_asks_for_no_label() -> None:
    stub, batch = linear()
    found = noise(stub, batch)
    for _ in range(2):
        found = away(stub, batch, 0.1 * found / np.linalg.norm(found.reshape(3, 8), axis=1)[:, None, None])
    found = 0.6 * found / np.linalg.norm(found.reshape(3, 8), axis=1)[:, None, None]
    check_divergence(stub, batch, {"method": "vat", "steps": 2, "lr": 0.6}, found, symmetric=False)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"method": "freelb", "beta": 0.5}, "freelb has no beta"),
        ({"method": "vat", "max_norm": 0.5}, "vat has no max_norm"),
        ({"method": "vat", "init_mag": 0.0}, "init_mag must be above 0"),
        ({"method": "smart", "per_row": 1}, "need method: vat"),
    ],
)
def test_knobs_of_other_methods_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OBJECTIVES.build({"name": "adversarial", **knobs})


def test_a_method_has_the_defaults_of_its_paper_and_writes_them_down() -> None:
    spec = OBJECTIVES.build({"name": "adversarial", "method": "smart", "lr": 0.01}).spec()
    assert (spec["steps"], spec["lr"], spec["init_mag"], spec["max_norm"]) == (1, 0.01, 1e-5, 0.0)
    assert OBJECTIVES.build(spec).spec() == spec
    assert OBJECTIVES.build({"name": "adversarial", "method": "freelb"}).passes == (3, 3)


def test_a_mixture_is_of_two_rows_of_their_labels_and_of_their_lengths() -> None:
    stub, batch = linear()
    torch.manual_seed(4)
    loss = OBJECTIVES.build({"name": "mixup", "a": 0.8})(stub, batch, TASK)
    torch.manual_seed(4)
    drawn = torch.distributions.Beta(*torch.full((2,), 0.8, dtype=torch.float64)).sample((3,)).numpy()
    partners = torch.randperm(3).numpy()
    share, mask = np.maximum(drawn, 1 - drawn), batch.inputs["attention_mask"].numpy()
    assert partners[1] != 1  # the short row has a longer partner
    real = stub.embeddings.numpy() * mask[..., None]
    mixed = share[:, None, None] * real + (1 - share)[:, None, None] * real[partners]
    np.testing.assert_allclose(stub.seen.numpy(), mixed, atol=1e-12)
    assert stub.asked.inputs["attention_mask"].tolist() == np.maximum(mask, mask[partners]).tolist()
    labels = batch.labels.numpy()
    soft = share[:, None] * np.eye(2)[labels] + (1 - share)[:, None] * np.eye(2)[labels[partners]]

    def value(weights: Array) -> float:
        return float(-(soft * log_softmax(mixed.reshape(3, 8) @ weights)).sum(-1).mean())

    weights = stub.weights.detach().numpy().copy()
    assert float(loss.total.detach()) == pytest.approx(value(weights), rel=1e-12)
    loss.total.backward()
    assert stub.weights.grad is not None
    np.testing.assert_allclose(stub.weights.grad.numpy(), numeric(value, weights), atol=1e-9)
