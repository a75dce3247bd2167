"""Full fine-tuning: every parameter moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothways.contracts import Move
from bothways.output_side.trainable import Moves, Trainable
from bothways.registry import TRAINABLES

if TYPE_CHECKING:
    from torch import nn


@TRAINABLES.register("full")
class Full(Trainable):
    term = "full fine-tuning"

    def moves(self, model: nn.Module) -> Moves:
        return {name: Move() for name, _ in model.named_parameters()}
