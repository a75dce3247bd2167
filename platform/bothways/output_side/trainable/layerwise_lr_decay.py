"""Layer-wise learning rates: the lower a layer, the less it moves, for what it knows is of more use to any task.

The layer at depth d (0: head, 1: last layer, …, last of all the embeddings) learns at the rate of the step times f^d.
Howard & Ruder 2018 call them discriminative learning rates and take f = 1 / 2.6; Sun et al. 2019 found 0.95 the best
for BERT.
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


@TRAINABLES.register("layerwise_lr_decay")
class LayerwiseLrDecay(Trainable):
    """`factor`: a layer's learning rate as a multiple of that of the layer above."""

    term = "discriminative learning rates"
    source = "ULMFiT, Howard & Ruder 2018; Sun et al. 2019"
    neutral: ClassVar[Mapping[str, Any]] = {"factor": 1.0}

    factor: Annotated[float, Field(gt=0.0, le=1.0), Range(0.4, 1.0)] = 0.9

    def moves(self, model: nn.Module) -> Moves:
        return by_depth(model, lambda depth: Move(rate=self.factor**depth))
