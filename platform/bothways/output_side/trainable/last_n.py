"""Partial fine-tuning: the last `n` encoder layers and the head move; embeddings and lower layers are frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bothways.errors import UserError
from bothways.output_side.trainable import layers, train_head_only
from bothways.registry import TRAINABLES, Component, Range

if TYPE_CHECKING:
    from torch import nn


@TRAINABLES.register("last_n")
class LastN(Component):
    """`n`: encoder layers that move, counted from the output."""

    term = "partial fine-tuning"

    n: Annotated[int, Field(ge=1), Range(1, 4)] = 2

    def __call__(self, model: nn.Module) -> None:
        """Raises `UserError` when the encoder has fewer than `n` layers."""
        found = layers(model)
        if self.n > len(found):
            raise UserError(f"last_n: n = {self.n}, but the encoder has {len(found)} layers; use full to train all")
        train_head_only(model)
        for layer in found[-self.n :]:
            layer.requires_grad_(True)
