"""Meta-learning: outer gradients against closed forms and finite differences, and what an update does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bothways.config.few_shot import Episodes
from bothways.contracts import Batch
from bothways.errors import UserError
from bothways.few_shot.learner import Classifier, plain, prototypes
from bothways.joint.meta import Episode, Learner, Parameters, adapt, fixed
from bothways.models import load, reset
from bothways.registry import META, TRAINABLES
from tests import tiny

RATE, WIDTH = 0.1, 3


class Line(Learner):
    """Least squares: L(w) = |Xw - y|^2 / 2N, whose gradient is A w - b with A = X'X / N and b = X'y / N."""

    def __init__(self, weight: Tensor) -> None:
        self.module = nn.ParameterDict({"w": nn.Parameter(weight.clone())})

    def start(self, parameters: Parameters, support: Batch) -> Parameters:
        return parameters

    def loss(self, parameters: Parameters, batch: Batch, *, twice: bool = False) -> Tensor:
        return ((batch.inputs["x"] @ parameters["w"] - batch.labels) ** 2).mean() / 2

    def rates(self, step: int) -> Mapping[str, float]:
        return {"w": RATE}


def points(rows: int, seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, WIDTH, dtype=torch.float64, generator=draw)
    y = torch.randn(rows, dtype=torch.float64, generator=draw)
    return Batch(inputs={"x": x}, labels=y, is_copy=torch.zeros(rows, dtype=torch.bool))


def normal(batch: Batch) -> tuple[Tensor, Tensor]:
    x = batch.inputs["x"]
    return x.T @ x / len(x), x.T @ batch.labels / len(x)


SQUARES = Episode(support=points(6, 1), query=points(4, 2))
WEIGHT = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def outer(learner: Learner, steps: int, spec: Mapping[str, Any], share: float = 1.0) -> Tensor:
    META.build(spec).gradient(learner, SQUARES, steps, share)
    found = dict(learner.module.named_parameters())["w"].grad
    assert found is not None
    return found


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_maml_on_least_squares_is_the_closed_form(steps: int) -> None:
    a, b = normal(SQUARES.support)
    a_query, b_query = normal(SQUARES.query)
    adapted, through = WEIGHT, torch.eye(WIDTH, dtype=torch.float64)
    for _ in range(steps):
        adapted = adapted - RATE * (a @ adapted - b)
        through = through - RATE * a @ through
    at_the_end = a_query @ adapted - b_query
    first = outer(Line(WEIGHT), steps, {"name": "maml", "order": "first"})
    second = outer(Line(WEIGHT), steps, {"name": "maml", "order": "second"})
    torch.testing.assert_close(first, at_the_end)
    torch.testing.assert_close(second, through.T @ at_the_end)
    assert torch.equal(first, second) == (steps == 0)


def test_reptile_goes_to_where_the_episodes_own_training_leads() -> None:
    rows = SQUARES.support.join(SQUARES.query)
    adapted = WEIGHT
    for start in (0, 5, 0):  # ten rows in two mini-batches, by turns
        a, b = normal(rows.slice(start, start + 5))
        adapted = adapted - RATE * (a @ adapted - b)
    learner = Line(WEIGHT)
    found = outer(learner, 3, {"name": "reptile", "batch_size": 5}, share=0.5)
    torch.testing.assert_close(found, 0.5 * (WEIGHT - adapted))
    again = outer(learner, 3, {"name": "reptile", "batch_size": 5}, share=0.5)  # a second episode is added
    torch.testing.assert_close(again, WEIGHT - adapted)
    weight = dict(learner.module.named_parameters())["w"]
    torch.optim.SGD([weight], lr=1.0).step()
    torch.testing.assert_close(weight.detach(), adapted)


def classifier(head: str = "prototypes", **knobs: Any) -> tuple[Classifier, Episode]:
    """A tiny encoder in float64 without dropout, and a 3-way episode with 2 + 2 rows of each class."""
    labels = ("0", "1", "2")
    bundle = load(tiny.model_dir(), labels)
    reset(bundle, labels=labels, dropout=0.0, seed=3)
    module = bundle.module.double().train()
    for name, value in module.named_parameters():  # so that texts differ in more than their third digit
        value.data *= 4 if value.dim() == 2 and "embeddings" not in name else 1
    ids = torch.randint(5, 30, (12, 6), generator=torch.Generator().manual_seed(4))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    inputs["attention_mask"][::3, 4:] = 0
    batch = Batch(inputs=inputs, labels=torch.arange(12) % 3, is_copy=torch.zeros(12, dtype=torch.bool))
    shape = Episodes(ways=3, shots=2, queries=2, head=head, **{"adapt_lr": 0.3, **knobs})
    return Classifier(module, shape), Episode(support=batch.slice(0, 6), query=batch.slice(6, 12))


def gradients(learner: Learner, episode: Episode, steps: int, **knobs: Any) -> dict[str, Tensor]:
    learner.module.zero_grad()
    META.build({"name": "maml", **knobs}).gradient(learner, episode, steps, 1.0)
    return {name: value.grad for name, value in learner.own().items() if value.grad is not None}


def slope(learner: Learner, loss: Callable[[], Tensor], along: Mapping[str, Tensor], size: float = 1e-5) -> float:
    """The derivative of a loss of the module's parameters in a direction, by central differences."""
    own, values = learner.own(), []
    for sign in (1, -2, 1):
        with torch.no_grad():
            for name, value in along.items():
                own[name] += sign * size * value
        values.append(float(loss().detach()))
    return (values[0] - values[1]) / (2 * size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "adapts"), [("prototypes", "full"), ("prototypes", "head"), ("zero", "full"), ("zero", "last_n")]
)
def test_the_outer_gradient_of_an_encoder_is_that_of_finite_differences(head: str, adapts: str) -> None:
    learner, episode = classifier(head, adapt={"name": adapts})

    def exact() -> Tensor:
        start = learner.start(learner.own(), episode.support)
        return learner.loss(adapt(learner, start, [episode.support], 2), episode.query)

    begun = learner.start(learner.own(), episode.support)
    ended = adapt(learner, begun, [episode.support], 2)
    steps = {name: (ended[name] - begun[name]).detach() for name in begun}

    def with_constant_steps() -> Tensor:
        start = learner.start(learner.own(), episode.support)
        return learner.loss({name: value + steps[name] for name, value in start.items()}, episode.query)

    draw = torch.Generator().manual_seed(5)
    slopes = []
    for order, loss in (("second", exact), ("first", with_constant_steps)):
        found = gradients(learner, episode, 2, order=order)
        assert not set(learner.head) & set(found)
        along = {
            name: torch.randn(value.shape, dtype=value.dtype, generator=draw)
            for name, value in learner.own().items()
            if name not in learner.head
        }
        told = sum(float((value * along[name]).sum()) for name, value in found.items())
        assert told == pytest.approx(slope(learner, loss, along), rel=1e-5)
        slopes.append({name: value.clone() for name, value in found.items()})
    second, first = slopes
    assert any(not torch.allclose(first[name], second[name], rtol=1e-3) for name in first)


def test_without_a_step_both_orders_are_prototypical_networks() -> None:
    learner, episode = classifier()
    first, second = (gradients(learner, episode, 0, order=order) for order in ("first", "second"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_prototypes_classify_by_the_nearest_mean() -> None:
    draw = torch.Generator().manual_seed(6)
    features, labels = torch.randn(12, 5, generator=draw), torch.arange(12) % 3
    weight, bias = prototypes(features, labels, 3)
    means = torch.stack([features[labels == way].mean(dim=0) for way in range(3)])
    logits = features @ weight.T + bias
    distances = ((features[:, None] - means) ** 2).sum(dim=2)
    torch.testing.assert_close(logits - logits[:, :1], distances[:, :1] - distances)


def test_adaptation_lowers_the_loss_and_leaves_the_model_alone() -> None:
    learner, episode = classifier("zero", adapt={"name": "layerwise_lr_decay"}, adapt_lr=0.02, adapt_head_lr=0.5)
    before = fixed(learner.own())
    start = learner.start(before, episode.support)
    ended = (fixed(adapt(learner, start, [episode.support], steps)) for steps in (0, 8))
    losses = [float(learner.loss(parameters, episode.support)) for parameters in ended]
    assert losses[0] == pytest.approx(math.log(3)) and losses[1] < 0.9 * losses[0]
    rates = set(learner.rates(0).values())
    assert max(rates) == 0.5 and len(rates) > 2  # the head's own, and others by depth
    assert all(torch.equal(before[name], value) for name, value in learner.own().items())


def test_what_puts_parts_into_the_model_is_refused() -> None:
    with pytest.raises(UserError, match="trainable lora puts parts of its own into the model: use full"):
        plain(TRAINABLES.build("lora"))
