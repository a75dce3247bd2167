"""Partial fine-tuning: the last `n` encoder layers and the head move; embeddings and lower layers are frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bothways.contracts import Move
from bothways.errors import UserError
from bothways.output_side.trainable import Moves, Trainable, head_parameters, layers, stack
from bothways.registry import TRAINABLES, Range

if TYPE_CHECKING:
    from torch import nn


@TRAINABLES.register("last_n")
class LastN(Trainable):
    """`n`: layers that move, counted from the output."""

    term = "partial fine-tuning"

    n: Annotated[int, Field(ge=1), Range(1, 4)] = 2

    def moves(self, model: nn.Module) -> Moves:
        """Raises `UserError` when the model has fewer than `n` layers."""
        found = len(layers(model))
        if self.n > found:
            raise UserError(f"last_n: n = {self.n}, but the encoder has {found} layers; use full to train all")
        levels = stack(model)[: self.n + bool(head_parameters(model))]
        return {name: Move() for names in levels for name in names}
