"""Linear probing in the wide sense: the classification head moves (with BERT's pooler), the encoder is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothways.contracts import Move
from bothways.output_side.trainable import Moves, Trainable, head_parameters, names_of
from bothways.registry import TRAINABLES

if TYPE_CHECKING:
    from torch import nn


@TRAINABLES.register("head")
class Head(Trainable):
    term = "feature extraction, frozen encoder"

    def moves(self, model: nn.Module) -> Moves:
        return {name: Move() for name in names_of(model, head_parameters(model))}
