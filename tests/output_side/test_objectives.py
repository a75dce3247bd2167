"""Every objective's contract, then each one's formula against a float64 reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from bothways import models
from bothways.batching import Encode, collate, collate_step, evaluation_views
from bothways.config import Term
from bothways.contracts import Batch, Loss
from bothways.errors import UserError
from bothways.registry import OBJECTIVES, Component
from bothways.tasks.classification import Classification
from bothways.training import ModelForward, own_modules
from tests import tiny

TASK = Classification()
NAMES = OBJECTIVES.names()
ACTIVE: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [{"class_weights": [1.0, 3.0]}],
    "label_smoothing": [{"epsilon": 0.2}, {"epsilon": 0.2, "augmented_only": True}],
    "rdrop": [{"alpha": 2.0}],
    "consistency": [{"confidence": 0.0}, {"rows": "labelled", "per_row": 2, "annealing": "linear", "confidence": 0.45}],
    "coral": [{}],
    "mmd": [{"strength": 0.01, "per_row": 2}],
    "dann": [{"strength": 0.5, "per_row": 2}],
    "domain_embedding": [{"loss": "dann"}, {"loss": "coral", "strength": 3.0}, {"strength": 0.01, "per_row": 2}],
    "gan": [{"matching": 0.0}, {"strength": 0.5, "per_row": 2}],
    "adversarial": [
        {"method": "fgm", "lr": 0.3},
        {"method": "pgd", "steps": 3, "lr": 0.2, "init_mag": 0.4, "max_norm": 0.35, "beta": 0.5},
    ],
}
OF_THE_WHOLE = [("coral", 0), ("mmd", 0), ("domain_embedding", 1), ("domain_embedding", 2), ("gan", 1)]
"""Those with a statistic of the whole batch: slices have their own."""
SETTINGS = [pytest.param(name, knobs, id=f"{name}-{i}") for name in NAMES for i, knobs in enumerate(ACTIVE[name])]


@pytest.fixture(scope="module")
def batch() -> Batch:
    encode = Encode(tokenizer_path=tiny.model_dir(), max_length=24, paired=False)
    found = collate(encode(evaluation_views(tiny.rows(6, seed=5))), pad_id=0)
    return replace(found, is_copy=torch.tensor([False, True, False, True, True, False]))


def model(dropout: float) -> Any:
    bundle = models.load(tiny.model_dir(), tiny.LABELS)
    models.reset(bundle, labels=tiny.LABELS, dropout=dropout, seed=3)
    return bundle.module.train()


def with_beside(objective: Component, batch: Batch) -> Batch:
    """The batch with what the objective reads beside it: rows drawn from a few others, as the trial would give them."""
    kind = objective.beside  # type: ignore[attr-defined]
    if kind is None or kind in batch.beside:
        return batch
    encode = Encode(tokenizer_path=tiny.model_dir(), max_length=24, paired=False)
    pool = collate(encode(evaluation_views(tiny.rows(len(batch) * kind.per_row * kind.views, seed=9))), pad_id=0)
    width = batch.inputs["input_ids"].shape[1]
    assert pool.inputs["input_ids"].shape[1] <= width
    inputs = {k: functional.pad(v, (0, width - v.shape[1])) for k, v in pool.inputs.items()}
    pool, size = replace(pool, inputs=inputs), len(batch) * kind.per_row
    views = tuple(pool.slice(at, at + size) for at in range(0, len(pool), size))
    return replace(batch, beside={**batch.beside, kind: views}, progress=0.5)


def run(objective: Component, module: Any, batch: Batch, seed: int = 0) -> tuple[Loss, dict[str, Tensor]]:
    """The loss and every parameter's gradient."""
    module.zero_grad(set_to_none=True)
    forward = forwarded(module, objective)
    torch.manual_seed(seed)
    loss = objective(forward, with_beside(objective, batch), TASK)  # type: ignore[operator]
    loss.total.backward()
    return loss, {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}


def forwarded(module: Any, objective: Component) -> ModelForward:
    """The model as the training loop gives it to the objective."""
    return ModelForward(module, module, "fp32", own_modules(module, [Term(objective=objective)], seed=1))


class Counting(ModelForward):
    """Counts the calls that DDP would see."""

    calls = 0

    def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().__call__(batch, embeddings)


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_the_loss_is_a_finite_scalar_with_finite_detached_parts(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    loss, _ = run(OBJECTIVES.build({"name": name, **knobs}), model(0.1), batch)
    assert loss.total.shape == ()
    assert torch.isfinite(loss.total)
    assert loss.parts
    assert all(part.shape == () and torch.isfinite(part) and not part.requires_grad for part in loss.parts.values())


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_gradients_reach_every_parameter(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    module = model(0.1)
    _, gradients = run(OBJECTIVES.build({"name": name, **knobs}), module, batch)
    assert set(gradients) == {name for name, _ in module.named_parameters()}
    # The softmax of attention does not see what all keys have in common: a key bias has no gradient by nature.
    still = {name for name, value in gradients.items() if not value.any()}
    assert all(name.endswith("key.bias") for name in still)


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_an_objective_moves_the_model_elsewhere_than_cross_entropy(
    name: str, knobs: dict[str, Any], batch: Batch
) -> None:
    plain = run(OBJECTIVES.build("cross_entropy"), model(0.1), batch)[1]["classifier.weight"]
    assert not torch.allclose(
        run(OBJECTIVES.build({"name": name, **knobs}), model(0.1), batch)[1]["classifier.weight"], plain
    )


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_the_order_of_the_rows_does_not_matter(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    if knobs.get("init_mag"):
        knobs = {**knobs, "init_mag": 0.0}  # its start is drawn by position
    objective, order = OBJECTIVES.build({"name": name, **knobs}), torch.tensor([3, 0, 5, 1, 4, 2])
    batch = with_beside(objective, batch)
    shuffled = replace(
        batch,
        inputs={key: value[order] for key, value in batch.inputs.items()},
        labels=batch.labels[order],
        is_copy=batch.is_copy[order],
    )
    module = model(0.0)
    there, back = run(objective, module, batch), run(objective, module, shuffled)
    assert float(there[0].total.detach()) == pytest.approx(float(back[0].total.detach()), abs=1e-6)
    assert all(torch.allclose(value, back[1][key], atol=1e-5) for key, value in there[1].items())


@pytest.mark.parametrize(
    ("name", "knobs"), [s for s in SETTINGS if s.id not in {f"{name}-{i}" for name, i in OF_THE_WHOLE}]
)
def test_slices_weighted_by_their_rows_add_up_to_the_batch(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    if knobs.get("init_mag"):
        knobs = {**knobs, "init_mag": 0.0}
    objective, module = OBJECTIVES.build({"name": name, **knobs}), model(0.0)
    batch = with_beside(objective, batch)
    whole = run(objective, module, batch)[1]
    first, second = run(objective, module, batch.slice(0, 2))[1], run(objective, module, batch.slice(2, 6))[1]
    assert all(torch.allclose(value, first[key] / 3 + second[key] * 2 / 3, atol=1e-5) for key, value in whole.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_neutral_setting_is_cross_entropy_to_the_last_bit(name: str, batch: Batch) -> None:
    member = OBJECTIVES.get(name)
    assert member.neutral
    neutral = member(**member.neutral)
    ours, gradients = run(neutral, model(0.1), batch)
    plain, expected = run(OBJECTIVES.build("cross_entropy"), model(0.1), batch)
    assert torch.equal(ours.total, plain.total)
    assert all(torch.equal(gradients[key], value) for key, value in expected.items())
    assert neutral.passes == (1, 1)


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_there_is_one_call_of_forward_for_a_backward_pass(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    module = model(0.1)
    objective = OBJECTIVES.build({"name": name, **knobs})
    forward = Counting(module, module, "fp32", own_modules(module, [Term(objective=objective)], seed=1))
    objective(forward, with_beside(objective, batch), TASK)
    assert forward.calls == 1


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_the_passes_declared_are_the_rows_the_model_sees(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    module, seen = model(0.1), []
    module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["attention_mask"])), with_kwargs=True
    )
    objective = OBJECTIVES.build({"name": name, **knobs})
    run(objective, module, batch)
    assert sum(seen) == objective.passes[0] * len(batch)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("name", NAMES)
def test_every_family_of_encoders_is_served(name: str, family: str) -> None:
    bundle = models.load(tiny.model_dir(family), tiny.LABELS)
    models.reset(bundle, labels=tiny.LABELS, dropout=None, seed=3)
    encode = Encode(tokenizer_path=bundle.path, max_length=24, paired=True)
    objective = OBJECTIVES.build({"name": name, **ACTIVE[name][-1]})
    kinds = [objective.beside] if objective.beside else []
    views = 4 * (1 + sum(kind.per_row * kind.views for kind in kinds))
    rows = collate_step(encode(evaluation_views(tiny.rows(views, seed=5, paired=True))), 0, kinds)
    loss, gradients = run(objective, bundle.module.train(), rows)
    assert torch.isfinite(loss.total)
    assert set(gradients) == {key for key, _ in bundle.module.named_parameters()}


# -- formulas ------------------------------------------------------------------------------------------------------


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


def log_softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


LOGITS = np.random.default_rng(0).normal(size=(8, 3)) * 2
ROWS = rows_of([0, 2, 1, 1], [False, True, True, False])
HARD = -log_softmax(LOGITS[:4])[np.arange(4), [0, 2, 1, 1]]


def reference(name: str, knobs: dict[str, Any], logits: np.ndarray[Any, Any]) -> float:
    """The definitions of the papers, in numpy."""
    first, labels = log_softmax(logits[:4]), [0, 2, 1, 1]
    hard = -first[np.arange(4), labels]
    if name == "cross_entropy":
        return float((np.array(knobs["class_weights"])[labels] * hard).mean())
    if name == "label_smoothing":
        epsilon = knobs["epsilon"] * (np.array([0, 1, 1, 0]) if knobs.get("augmented_only") else np.ones(4))
        target = np.eye(3)[labels] * (1 - epsilon)[:, None] + epsilon[:, None] / 3
        return float(-(target * first).sum(1).mean())
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
    ],
)
def test_the_value_and_its_gradient_are_the_papers(name: str, knobs: dict[str, Any]) -> None:
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = OBJECTIVES.build({"name": name, **knobs})(Table(logits), ROWS, TASK)
    assert float(loss.total.detach()) == pytest.approx(reference(name, knobs, LOGITS), rel=1e-12)
    loss.total.backward()
    numeric = np.zeros_like(LOGITS)
    for at in np.ndindex(*LOGITS.shape):
        for sign in (1, -1):
            moved = LOGITS.copy()
            moved[at] += sign * 1e-5
            numeric[at] += sign * reference(name, knobs, moved) / 2e-5
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), numeric, atol=1e-9)


class Linear:
    """A stand-in whose logits are linear in the embeddings, so that the worst direction is known in closed form."""

    def __init__(self, embeddings: Tensor, weights: Tensor) -> None:
        self.embeddings, self.weights = embeddings, weights

    def embed(self, batch: Batch) -> Tensor:
        return self.embeddings

    def inner(self, batch: Batch, embeddings: Tensor) -> Tensor:
        return embeddings.flatten(1) @ self.weights

    def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        assert embeddings is not None
        self.seen = embeddings.detach()
        return self.inner(batch, embeddings)


def linear() -> tuple[Linear, Batch]:
    draw = torch.Generator().manual_seed(1)
    embeddings = torch.randn(3, 2, 4, generator=draw, dtype=torch.float64)
    mask = torch.tensor([[1, 1], [1, 0], [1, 1]])
    batch = Batch(
        inputs={"attention_mask": mask}, labels=torch.tensor([0, 1, 1]), is_copy=torch.zeros(3, dtype=torch.bool)
    )
    return Linear(embeddings, torch.randn(8, 2, generator=draw, dtype=torch.float64)), batch


def worst_direction(stub: Linear, batch: Batch, at: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Gradient of cross-entropy with respect to the embeddings, (p - onehot) W^T, on real tokens, at unit length."""
    weights = stub.weights.numpy()
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
    hard = [-log_softmax(x.reshape(3, 8) @ stub.weights.numpy())[range(3), batch.labels] for x in (clean, expected)]
    assert float(loss.total) == pytest.approx(hard[0].mean() + 0.5 * hard[1].mean(), rel=1e-12)
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


def test_class_weights_of_another_number_of_classes_are_refused(batch: Batch) -> None:
    with pytest.raises(UserError, match="3 entries, the data 2 classes"):
        run(OBJECTIVES.build({"name": "cross_entropy", "class_weights": [1, 1, 1]}), model(0.0), batch)
