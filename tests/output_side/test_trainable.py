"""Which parameters move, for three families of encoders."""

from __future__ import annotations

from typing import Any

import pytest

from bothways import models
from bothways.errors import UserError
from bothways.registry import TRAINABLES
from tests import tiny

FAMILIES = ["bert", "roberta", "distilbert"]
HEADS = {
    "bert": {"bert.pooler.dense", "classifier"},
    "roberta": {"classifier.dense", "classifier.out_proj"},
    "distilbert": {"pre_classifier", "classifier"},
}


def moving(family: str, **spec: Any) -> tuple[set[str], set[str]]:
    """Names of the parameters that move, and of all."""
    module = models.load(tiny.model_dir(family), tiny.LABELS).module
    TRAINABLES.build(spec)(module)
    every = dict(module.named_parameters())
    return {name for name, value in every.items() if value.requires_grad}, set(every)


def of_layers(names: set[str]) -> set[str]:
    return {name.split("layer.")[1].split(".")[0] for name in names if ".layer." in name}


@pytest.mark.parametrize("family", FAMILIES)
def test_full_moves_everything(family: str) -> None:
    found, every = moving(family, name="full")
    assert found == every


@pytest.mark.parametrize("family", FAMILIES)
def test_head_moves_the_two_layers_after_the_encoder(family: str) -> None:
    found, _ = moving(family, name="head")
    assert {name.rpartition(".")[0] for name in found} == HEADS[family]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [1, 2])
def test_last_n_moves_the_last_layers_and_the_head(family: str, n: int) -> None:
    found, _ = moving(family, name="last_n", n=n)
    head, _ = moving(family, name="head")
    assert of_layers(found) == {"0", "1", "2"} - {str(layer) for layer in range(3 - n)}
    assert {name for name in found if ".layer." not in name} == head


@pytest.mark.parametrize("name", TRAINABLES.names())
def test_a_second_call_does_not_see_the_first(name: str) -> None:
    module = models.load(tiny.model_dir(), tiny.LABELS).module
    TRAINABLES.build(name)(module)
    once = {key: value.requires_grad for key, value in module.named_parameters()}
    for other in TRAINABLES.names():
        TRAINABLES.build(other)(module)
    TRAINABLES.build(name)(module)
    assert {key: value.requires_grad for key, value in module.named_parameters()} == once


def test_more_layers_than_there_are_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="n = 7, but the encoder has 3 layers"):
        moving("bert", name="last_n", n=7)
