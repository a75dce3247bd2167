"""Gradual unfreezing: the head moves from the first step, and every k steps one more layer from the top with it.

The layer at depth d (0: head, 1: last layer, …, last of all the embeddings) moves from optimiser step k d on, at the
learning rate of the step times f^d. Howard & Ruder 2018 (ULMFiT) thaw a layer an epoch, with f = 1 / 2.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Move
from bothways.output_side.trainable import Moves, Trainable, by_depth
from bothways.registry import TRAINABLES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


@TRAINABLES.register("gradual_unfreezing")
class GradualUnfreezing(Trainable):
    """`every`: optimiser steps until the next layer moves. `factor`: a layer's learning rate as a multiple of that of
    the layer above.

    A layer that is still frozen has neither weight decay nor moments. Without a head of its own (a language model with
    tied embeddings) the last layer moves from the first step.
    """

    term = "gradual unfreezing"
    source = "ULMFiT, Howard & Ruder 2018"
    neutral: ClassVar[Mapping[str, Any]] = {"every": 0, "factor": 1.0}

    every: Annotated[int, Field(ge=0), Range(5, 50)] = 10
    factor: Annotated[float, Field(gt=0.0, le=1.0), Range(0.4, 1.0)] = 1.0

    def moves(self, model: nn.Module) -> Moves:
        return by_depth(model, lambda depth: Move(rate=self.factor**depth, since=self.every * depth))
