"""The head may learn at a rate of its own."""

from __future__ import annotations

import pytest

from bothways.config import Optim
from bothways.contracts import Move
from bothways.models import load
from bothways.output_side.trainable import head_parameters
from bothways.training.optimizer import parameter_groups
from tests import tiny


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_head_and_nothing_else_learns_at_head_lr(family: str) -> None:
    module = load(tiny.model_dir(family), tiny.LABELS).module
    named = dict(module.named_parameters())
    groups = parameter_groups(module, named, Optim(lr=1e-4, head_lr=1e-3), dict.fromkeys(named, Move()))
    scales = {id(value): group["scale"] for group in groups for value in group["params"]}
    new = {id(value) for value in head_parameters(module)}
    assert {round(scales[key], 6) for key in new} == {10.0}
    assert {scale for key, scale in scales.items() if key not in new} == {1.0}
    assert len(new) == 4  # a dense layer and a classifier, weight and bias each


def test_without_head_lr_every_group_learns_at_lr() -> None:
    module = load(tiny.model_dir(), tiny.LABELS).module
    named = dict(module.named_parameters())
    groups = parameter_groups(module, named, Optim(), dict.fromkeys(named, Move()))
    assert {group["scale"] for group in groups} == {1.0}
