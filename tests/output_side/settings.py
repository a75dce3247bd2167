"""Settings of the objectives at which each does what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny

ACTIVE: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [{"class_weights": [1.0, 3.0]}],
    "label_smoothing": [{"epsilon": 0.2}, {"epsilon": 0.2, "augmented_only": True}],
    "rdrop": [{"alpha": 2.0}],
    "consistency": [{"confidence": 0.0}, {"rows": "labelled", "per_row": 2, "annealing": "linear", "confidence": 0.45}],
    "coral": [{"strength": 0.05}],
    "mmd": [{"strength": 0.01, "per_row": 2}],
    "dann": [{"strength": 0.5, "per_row": 2}],
    "domain_embedding": [{"loss": "dann"}, {"loss": "coral", "strength": 0.05}, {"strength": 0.01, "per_row": 2}],
    "gan": [{"matching": 0.0}, {"strength": 0.5, "per_row": 2}],
    "adversarial": [
        {"method": "fgm", "lr": 0.3},
        {"method": "pgd", "steps": 3, "lr": 0.2, "init_mag": 0.4, "max_norm": 0.35, "beta": 0.5},
        {"method": "freelb", "steps": 3, "lr": 0.2, "max_norm": 0.35},
        {"method": "smart", "steps": 1, "lr": 0.1, "init_mag": 0.01},
        {"method": "vat", "steps": 2, "lr": 1.0},
        {"method": "vat", "lr": 1.0, "per_row": 2},
    ],
    "learn_to_reweight": [{"strength": 0.6}, {"layers": "head", "rows": "clean", "per_row": 2}],
    "cycle_consistency": [{"strength": 0.5}, {"rows": "unlabelled", "per_row": 2}],
    "multitask": [{"classes": [2, 3]}, {"classes": [2], "strength": 0.5, "per_row": 2, "temperature": 2.0}],
    "focal": [{"gamma": 2.0}],
    "mixup": [{"a": 1.0}, {"a": 1.0, "layer": 2}],
    "supervised_contrastive": [{"share": 0.7}],
    "margin": [{"m": 0.4}],
    "policy_gradient": [
        {"method": "reinforce", "kl": 0.0},
        {"method": "self_critical", "draws": 1, "supervised": 0.5},
        {"method": "group_relative", "draws": 3, "kl": 0.5, "temperature": 0.8},
    ],
    "preference": [{"beta": 0.3}, {"per_row": 2, "supervised": 0.5}],
    "language_feedback": [
        {"mode": "imitation"},
        {"mode": "hindsight", "per_row": 2},
        {"mode": "reward", "draws": 3, "kl": 0.5, "strength": 5.0},
        {"mode": "reward", "kl": 0.0, "per_row": 2},
    ],
    "distillation": [
        {"teachers": [tiny.saved_model()], "alpha": 0.7},
        {"teachers": [tiny.saved_model(), tiny.saved_model(seed=1)], "alpha": 1.0, "temperature": 3.0},
    ],
}


@contextmanager
def drawn_alike() -> Iterator[None]:
    """Random starts are drawn by position: inside, all rows have the same."""
    drawn = Tensor.uniform_

    def pattern(like: Tensor, *bounds: Any, **__: Any) -> Tensor:
        if like.dim() < 3:  # the start of a module's weights
            return drawn(like, *bounds)
        return torch.sin(torch.arange(like.shape[-1]) * 1.7).expand_as(like).clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", pattern)
        patch.setattr(Tensor, "uniform_", lambda like, *_, **__: like.copy_(pattern(like)))
        yield
