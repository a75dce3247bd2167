"""coral, mmd, dann, domain_embedding and gan: values and gradients against float64 references in numpy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from bothways.contracts import Batch, Loss, Outputs
from bothways.errors import UserError
from bothways.output_side.objectives.gan import row_noise
from bothways.registry import OBJECTIVES, Component
from bothways.tasks.classification import Classification

F64 = npt.NDArray[np.float64]
DRAW = np.random.default_rng(3)
N, M, H, C = 4, 8, 3, 2
FEATURES = np.concatenate([DRAW.normal(size=(N, H)), DRAW.normal(size=(M, H)) + 0.7])
WEIGHT, BIAS = DRAW.normal(size=(C, H)), DRAW.normal(size=C)


class Plain:
    """A stand-in for the model: features are a table the test owns, and one linear layer makes logits of them."""

    def __init__(self, objective: Component) -> None:
        self.features = torch.tensor(FEATURES, requires_grad=True)
        self.last = nn.Linear(H, C).double()
        self.last.load_state_dict({"weight": torch.tensor(WEIGHT), "bias": torch.tensor(BIAS)})
        torch.manual_seed(0)
        self.made = objective.modules(H, C)  # type: ignore[attr-defined]
        if self.made is not None:
            self.made.double()

    def outputs(self, batch: Batch, embeddings: Tensor | None = None) -> Outputs:
        self.read = embeddings
        return Outputs(self.last(self.features), self.features, self.last.weight)

    def own(self, objective: Any) -> nn.Module:
        assert self.made is not None
        return self.made

    def head(self, features: Tensor, *, frozen: bool = False) -> Tensor:
        return (copy.deepcopy(self.last).requires_grad_(False) if frozen else self.last)(features)

    def embed(self, batch: Batch) -> Tensor:
        return torch.zeros(*batch.inputs["input_ids"].shape, H, dtype=torch.float64)

    def gather(self, rows: Tensor) -> Tensor:
        return rows


def rows(first: int, count: int) -> Batch:
    ids = torch.arange(first, first + 5 * count).reshape(count, 5)
    mask = torch.ones_like(ids)
    return Batch(
        inputs={"input_ids": ids, "attention_mask": mask},
        labels=torch.arange(count) % 2,
        is_copy=torch.zeros(count, dtype=torch.bool),
    )


def run(name: str, progress: float = 0.3, **knobs: Any) -> tuple[Plain, Loss]:
    """The loss over N rows with M beside them, and the model with its gradients."""
    objective = OBJECTIVES.build({"name": name, "per_row": M // N, **knobs})
    forward = Plain(objective)
    batch = replace(rows(1, N), beside={objective.beside: (rows(100, M),)}, progress=progress)
    loss = objective(forward, batch, Classification())
    loss.total.backward()
    return forward, loss


def hard(features: F64) -> float:
    logits = features[:N] @ WEIGHT.T + BIAS
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(N), np.arange(N) % 2]).mean())


def numeric(function: Callable[[F64], float], at: F64) -> F64:
    found = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * 1e-6
            found[place] += sign * function(moved) / 2e-6
    return found


def unit(features: F64) -> float:
    return float((features[:N].var(0, ddof=1).mean() + features[N:].var(0, ddof=1).mean()) / 2)


def coral(features: F64, scale: float | None = None) -> float:
    """`scale`: the mean variance, which counts as given."""
    scale = scale or unit(features)
    apart = np.cov(features[:N], rowvar=False) - np.cov(features[N:], rowvar=False)
    return float(np.linalg.norm(apart, "fro") ** 2 / (4 * H**2 * scale**2))


def distances(features: F64) -> F64:
    return np.array([[((a - b) ** 2).sum() for b in features] for a in features])


def mmd(features: F64, middle: float | None = None) -> float:
    """Pair by pair. `middle`: the mean squared distance, which counts as given."""
    middle = middle or distances(features).sum() / ((N + M) * (N + M - 1))
    total = 0.0
    for scale in (0.25, 0.5, 1, 2, 4):
        k = np.exp(-distances(features) / (scale * middle))
        within = (k[:N, :N].sum() - N) / (N * (N - 1)) + (k[N:, N:].sum() - M) / (M * (M - 1))
        total += (within - 2 * k[:N, N:].mean()) / 5
    return float(total)


@pytest.mark.parametrize("by", ["alone", "with a domain embedding"])
@pytest.mark.parametrize(("name", "reference"), [("coral", coral), ("mmd", mmd)])
def test_a_distance_of_domains_and_its_gradient_are_the_papers(
    name: str, reference: Callable[..., float], by: str
) -> None:
    knobs = {"strength": 3.0} if by == "alone" else {"strength": 3.0, "loss": name}
    forward, loss = run(name if by == "alone" else "domain_embedding", **knobs)
    assert float(loss.total.detach()) == pytest.approx(hard(FEATURES) + 3 * reference(FEATURES), rel=1e-9)
    given = (
        {"scale": unit(FEATURES)}
        if name == "coral"
        else {"middle": distances(FEATURES).sum() / ((N + M) * (N + M - 1))}
    )
    expected = numeric(lambda x: hard(x) + 3 * reference(x, **given), FEATURES)
    assert forward.features.grad is not None
    np.testing.assert_allclose(forward.features.grad.numpy(), expected, atol=1e-7)


def test_the_discriminator_learns_and_its_gradient_reaches_the_features_reversed() -> None:
    forward, loss = run("dann", strength=0.5, progress=0.3)
    first, _, second = forward.made  # type: ignore[union-attr, misc]
    w1, b1, w2, b2 = (p.detach().numpy() for p in (first.weight, first.bias, second.weight, second.bias))

    def domain(features: F64, weight: F64 = w2) -> float:
        logits = (np.maximum(features @ w1.T + b1, 0) @ weight.T + b2)[:, 0]
        return float((np.log1p(np.exp(logits[:N])).mean() + np.log1p(np.exp(-logits[N:])).mean()) / 2)

    assert float(loss.total.detach()) == pytest.approx(hard(FEATURES) + domain(FEATURES), rel=1e-9)
    strength = 0.5 * (2 / (1 + np.exp(-10 * 0.3)) - 1)
    expected = numeric(hard, FEATURES) - strength * numeric(domain, FEATURES)
    np.testing.assert_allclose(forward.features.grad.numpy(), expected, atol=1e-7)  # type: ignore[union-attr]
    np.testing.assert_allclose(second.weight.grad.numpy(), numeric(lambda w: domain(FEATURES, w), w2), atol=1e-7)


def test_nothing_is_reversed_at_the_start() -> None:
    forward, _ = run("dann", strength=1.0, progress=0.0)
    np.testing.assert_allclose(forward.features.grad.numpy(), numeric(hard, FEATURES), atol=1e-7)  # type: ignore[union-attr]


def test_a_domain_embedding_is_added_to_the_tokens_of_source_rows_only() -> None:
    objective = OBJECTIVES.build({"name": "domain_embedding", "per_row": M // N})
    forward = Plain(objective)
    nn.init.constant_(forward.made.get_parameter("vector.weight"), 2.0)  # type: ignore[union-attr]
    both = rows(1, N).join(rows(100, M))
    read = objective.embeddings(forward, both, N)
    assert bool((read[:N] == 2).all()) and not read[N:].any()
    narrow = OBJECTIVES.build("domain_embedding")
    forward.made = narrow.modules(H + 1, C)
    with pytest.raises(UserError, match="4 dimensions and its input embeddings 3"):
        narrow.embeddings(forward, both, N)


def leaky(values: F64) -> F64:
    return np.where(values > 0, values, 0.2 * values)


def test_both_players_of_a_gan_learn_their_own_loss_and_nothing_else() -> None:
    forward, loss = run("gan", strength=0.5, matching=2.0, noise=4, progress=0.3)
    z = row_noise(rows(100, M), 4, 0.3).numpy()
    state = {name: value.detach().numpy() for name, value in forward.made.state_dict().items()}  # type: ignore[union-attr]

    def odds(features: F64, of: dict[str, F64], last: F64) -> tuple[F64, F64]:
        """Log-odds of real against made up, and the hidden layer."""
        hidden = leaky(features @ of["hidden.0.weight"].T + of["hidden.0.bias"])
        made_up = hidden @ of["made_up.weight"].T + of["made_up.bias"]
        return np.log(np.exp(features @ last.T + BIAS).sum(1)) - made_up[:, 0], hidden

    def generated(of: dict[str, F64]) -> F64:
        inner = leaky(z @ of["generator.0.weight"].T + of["generator.0.bias"])
        return np.asarray(inner @ of["generator.2.weight"].T + of["generator.2.bias"])

    def discriminator(features: F64 = FEATURES, last: F64 = WEIGHT, **changed: F64) -> float:
        real, made = odds(features, state | changed, last)[0], odds(generated(state), state | changed, last)[0]
        return float(-np.log(1 / (1 + np.exp(-real))).mean() - np.log(1 / (1 + np.exp(made))).mean())

    def generator(**changed: F64) -> float:
        (passed, of_made), (_, of_real) = odds(generated(state | changed), state, WEIGHT), odds(FEATURES, state, WEIGHT)
        matched = ((of_real.mean(0) - of_made.mean(0)) ** 2).sum()
        return float(-np.log(1 / (1 + np.exp(-passed))).mean() + 2 * matched)

    expected = hard(FEATURES) + 0.5 * (discriminator() + generator())
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-9)
    gradients = {name: p.grad.numpy() for name, p in forward.made.named_parameters()}  # type: ignore[union-attr]
    for name in ("generator.0.weight", "generator.2.bias"):
        want = 0.5 * numeric(lambda x, name=name: generator(**{name: x}), state[name])  # type: ignore[misc]
        np.testing.assert_allclose(gradients[name], want, atol=1e-7)
    for name in ("hidden.0.weight", "made_up.weight"):
        want = 0.5 * numeric(lambda x, name=name: discriminator(**{name: x}), state[name])  # type: ignore[misc]
        np.testing.assert_allclose(gradients[name], want, atol=1e-7)
    of_features = numeric(hard, FEATURES) + 0.5 * numeric(lambda x: discriminator(features=x), FEATURES)
    np.testing.assert_allclose(forward.features.grad.numpy(), of_features, atol=1e-7)  # type: ignore[union-attr]
    logits = FEATURES[:N] @ WEIGHT.T + BIAS
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    supervised = (p - np.eye(C)[np.arange(N) % 2]).T @ FEATURES[:N] / N
    of_last = supervised + 0.5 * numeric(lambda x: discriminator(last=x), WEIGHT)
    np.testing.assert_allclose(forward.last.weight.grad.numpy(), of_last, atol=1e-7)  # type: ignore[union-attr]


def test_the_noise_of_a_row_is_its_own_wherever_it_stands_and_new_at_every_step() -> None:
    batch = rows(1, 6)
    noise = row_noise(batch, 200, 0.25)
    assert torch.equal(row_noise(batch.slice(2, 4), 200, 0.25), noise[2:4])
    padded = {name: nn.functional.pad(value, (0, 3)) for name, value in batch.inputs.items()}
    assert torch.equal(row_noise(replace(batch, inputs=padded), 200, 0.25), noise)
    assert not torch.equal(row_noise(batch, 200, 0.5), noise)
    assert len({tuple(row[:4].tolist()) for row in noise}) == 6
    assert noise.min() < -0.95 and noise.max() > 0.95 and abs(float(noise.mean())) < 0.1


def test_a_statistic_of_one_row_is_refused() -> None:
    objective = OBJECTIVES.build("coral")
    batch = replace(rows(1, 1), beside={objective.beside: (rows(100, 1),)})
    forward = Plain(objective)
    forward.features = torch.tensor(FEATURES[:2])
    with pytest.raises(UserError, match=r"two rows of each domain at once: raise optim\.batch_size"):
        objective(forward, batch, Classification())
