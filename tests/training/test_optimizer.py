"""An embedding trained by rows is the embedding trained whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bothways import models
from bothways.config import Optim
from bothways.contracts import Move
from bothways.edges.local import OneWorker
from bothways.models.embedding_rows import EmbeddingRows
from bothways.training.optimizer import Optimizer, learning_rate, parameter_groups
from tests import tiny

OPTIM = Optim(steps=6, lr=1e-2, warmup=0.0, schedule="linear", clip_norm=0.5)
IDS = [  # some tokens come back, some occur once, 0 is padding
    torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]),
    torch.tensor([[2, 9, 9, 3], [2, 5, 3, 0]]),
    torch.tensor([[2, 8, 6, 3], [2, 12, 3, 0]]),
]


def fresh_module() -> nn.Module:
    bundle = models.load(tiny.model_dir(), tiny.LABELS)
    models.reset(bundle, labels=tiny.LABELS, dropout=0.0, seed=1)
    module: nn.Module = bundle.module
    return module


def full(module: nn.Module) -> dict[str, Move]:
    return {name: Move() for name, _ in module.named_parameters()}


def loss(module: nn.Module, ids: Tensor) -> Tensor:
    logits = module(input_ids=ids, attention_mask=(ids != 0).long()).logits
    return nn.functional.cross_entropy(logits, torch.tensor([0, 1]))


def train_by_rows(module: nn.Module) -> Optimizer:
    optimiser = Optimizer(module, OPTIM, OneWorker(), full(module))
    with optimiser.in_place():
        for step, ids in enumerate(IDS):
            loss(module, ids).backward()
            optimiser.step(step)
    return optimiser


def test_training_by_rows_is_adamw_over_all_rows() -> None:
    by_rows = fresh_module()
    whole = copy.deepcopy(by_rows)
    train_by_rows(by_rows)
    adamw = torch.optim.AdamW(parameter_groups(whole, dict(whole.named_parameters()), OPTIM, full(whole)), lr=OPTIM.lr)
    for step, ids in enumerate(IDS):
        loss(whole, ids).backward()
        nn.utils.clip_grad_norm_(whole.parameters(), 0.5)
        for group in adamw.param_groups:
            group["lr"] = learning_rate(OPTIM, step) * group["scale"]
        adamw.step()
        adamw.zero_grad()
    for (name, one), other in zip(by_rows.named_parameters(), whole.parameters(), strict=True):
        if not name.endswith("key.bias"):  # softmax takes it out again: its gradient is rounding, which AdamW magnifies
            torch.testing.assert_close(one, other, rtol=1e-4, atol=5e-6, msg=lambda t, n=name: f"{n}: {t}")


def test_rows_that_never_occur_stay_at_their_pretrained_value_and_the_others_move() -> None:
    module = fresh_module()
    before = module.get_input_embeddings().weight.detach().clone()  # type: ignore[operator]
    train_by_rows(module)
    moved = (module.get_input_embeddings().weight != before).any(dim=1).nonzero()[:, 0]  # type: ignore[operator]
    assert moved.tolist() == [2, 3, 5, 6, 7, 8, 9, 12]


def test_earlier_weights_come_back_also_for_rows_that_had_not_occurred_yet() -> None:
    module = fresh_module()
    optimiser = Optimizer(module, OPTIM, OneWorker(), full(module))
    with optimiser.in_place():
        loss(module, IDS[0]).backward()
        optimiser.step(0)
        then, kept = copy.deepcopy(module.state_dict()), optimiser.weights()
        loss(module, IDS[2]).backward()
        optimiser.step(1)
        assert any(not torch.equal(value, then[name]) for name, value in module.state_dict().items())
        optimiser.restore(kept)
    assert all(torch.equal(value, then[name]) for name, value in module.state_dict().items())


def test_outside_the_module_is_as_it_was() -> None:
    module = fresh_module()
    embedding = module.get_input_embeddings()  # type: ignore[operator]
    optimiser = Optimizer(module, OPTIM, OneWorker(), full(module))
    with pytest.raises(KeyboardInterrupt), optimiser.in_place():
        loss(module, IDS[0]).backward()
        raise KeyboardInterrupt
    assert embedding.weight.requires_grad and "forward" not in vars(embedding)
    assert all(value.grad is None for value in module.parameters())


def test_a_frozen_or_shared_embedding_is_not_trained_by_rows() -> None:
    module = fresh_module()
    assert EmbeddingRows.of(module) is not None
    module.register_parameter("tied", module.get_input_embeddings().weight)  # type: ignore[operator]
    assert EmbeddingRows.of(module) is None
    frozen = fresh_module()
    frozen.get_input_embeddings().weight.requires_grad_(False)  # type: ignore[operator]
    assert EmbeddingRows.of(frozen) is None


@pytest.mark.parametrize("average", [None, "ema"])
def test_a_gradient_that_is_not_finite_changes_nothing(average: str | None) -> None:
    module = fresh_module()
    before = copy.deepcopy(module.state_dict())
    optimiser = Optimizer(module, OPTIM.model_copy(update={"average": average}), OneWorker(), full(module))
    with optimiser.in_place():
        (loss(module, IDS[0]) * float("inf")).backward()
        assert not torch.isfinite(torch.tensor(optimiser.step(0)))
        optimiser.finish(None)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["adamw", "nadam", "radam", "sgd", "adafactor"])
def test_every_algorithm_by_rows_is_torchs_over_all_rows_and_goes_on_exactly(algorithm: Any) -> None:
    """Also of an embedding that moves from the second step only, at half the rate."""
    optim = OPTIM.model_copy(update={"algorithm": algorithm, "schedule": "inverse_sqrt", "average": "ema"})
    by_rows, restored = fresh_module(), fresh_module()
    whole = copy.deepcopy(by_rows)
    moves = {name: Move(*((0.5, 1) if "embeddings" in name else (1.0, 0))) for name in full(whole)}
    reference = {
        "adamw": lambda groups: torch.optim.AdamW(groups),
        "nadam": lambda groups: torch.optim.NAdam(groups, decoupled_weight_decay=True),
        "radam": lambda groups: torch.optim.RAdam(groups, decoupled_weight_decay=True),
        "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9),
        "adafactor": lambda groups: torch.optim.Adafactor(groups),
    }[algorithm](parameter_groups(whole, dict(whole.named_parameters()), optim, moves))
    optimiser, again = (Optimizer(module, optim, OneWorker(), moves) for module in (by_rows, restored))
    assert (optimiser._rows is None) == (algorithm == "adafactor")
    averages = {name: value.detach().clone() for name, value in whole.named_parameters()}
    kept: Any = None
    with optimiser.in_place():
        for step, ids in enumerate(IDS):
            loss(by_rows, ids).backward()
            optimiser.step(step)
            if step == 1:
                kept = copy.deepcopy((optimiser.weights(), optimiser.moments()))

            loss(whole, ids).backward()
            for group in reference.param_groups:
                group["lr"] = 0.01 * (1 + step) ** -0.5 * group["scale"]
                for value in group["params"]:
                    value.grad = None if step < group["since"] else value.grad
            nn.utils.clip_grad_norm_(whole.parameters(), 0.5)
            reference.step()
            reference.zero_grad()
            decay = min(0.99, (2 + step) / (11 + step))
            for name, value in whole.named_parameters():
                averages[name] = decay * averages[name] + (1 - decay) * value.detach()
    assert_close(by_rows, dict(whole.named_parameters()))

    with again.in_place():
        again.resume(*kept)
        loss(restored, IDS[2]).backward()
        again.step(2)
    assert all(map(torch.equal, by_rows.parameters(), restored.parameters()))
    optimiser.finish(None)
    again.finish(None)
    assert_close(by_rows, averages)
    assert all(map(torch.equal, by_rows.parameters(), restored.parameters()))


def assert_close(module: nn.Module, expected: Mapping[str, Tensor]) -> None:
    for name, value in module.named_parameters():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-5, msg=lambda t, n=name: f"{n}: {t}")
