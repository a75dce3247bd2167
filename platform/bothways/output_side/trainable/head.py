"""Linear probing in the wide sense: the classification head moves (with BERT's pooler), the encoder is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothways.output_side.trainable import train_head_only
from bothways.registry import TRAINABLES, Component

if TYPE_CHECKING:
    from torch import nn


@TRAINABLES.register("head")
class Head(Component):
    term = "feature extraction, frozen encoder"

    def __call__(self, model: nn.Module) -> None:
        train_head_only(model)
