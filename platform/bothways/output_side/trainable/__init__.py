"""Which parameters may move: one file a method. What they share, generic over encoder families, is below."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bothways.errors import UserError
from bothways.lazy import torch

if TYPE_CHECKING:
    from torch import nn


def encoder(model: nn.Module) -> nn.Module:
    """The pretrained body of a transformers model with a head (`model.bert`, `model.roberta`, …)."""
    return cast("nn.Module", model.base_model)


def layers(model: nn.Module) -> nn.ModuleList:
    """The encoder's layers, first to last: the longest module list of the body.

    Raises `UserError` when the body has none.
    """
    lists = [part for part in encoder(model).modules() if isinstance(part, torch.nn.ModuleList)]
    if not lists:
        raise UserError(f"{type(model).__name__} has no list of layers: use trainable full or head")
    return max(lists, key=len)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are new to the task: all outside the body, and the body's pooler.

    The pooler is BERT's dense layer between encoder and classifier; RoBERTa and DistilBERT keep that layer outside the
    body. With it, `the head` is the same two layers for every family.
    """
    body = encoder(model)
    pooler = getattr(body, "pooler", None)
    inside = {id(value) for value in body.parameters()}
    if pooler is not None:
        inside -= {id(value) for value in pooler.parameters()}
    return [value for value in model.parameters() if id(value) not in inside]


def train_head_only(model: nn.Module) -> None:
    """Freeze everything but the head."""
    model.requires_grad_(False)
    for value in head_parameters(model):
        value.requires_grad_(True)
