"""Domain-adversarial training (Ganin et al. 2016): features from which a discriminator cannot tell the domain.

L = CE(source) + 1/2 (mean -log(1 - d(f_S)) + mean -log d(f_T)), d the probability that a discriminator of its own gives
for the target: unlabelled text beside the labelled rows. The discriminator learns to tell them apart; on the way from
it to the features the gradient is reversed and multiplied by strength * l(p), so that the model learns the opposite.
l(p) = 2 / (1 + exp(-10 p)) - 1 grows with the share p of the training that is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bothways.contracts import Forward
from bothways.output_side.alignment import Alignment, confusion, discriminator, rising
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from torch import Tensor, nn


@OBJECTIVES.register("dann")
class Dann(Alignment):
    """`strength`: of the reversed gradient. `per_row`: unlabelled rows for each row of the batch."""

    term = "domain-adversarial training, gradient reversal"
    source = "DANN, Ganin et al. 2016"

    strength: Annotated[float, Field(ge=0.0), Range(0.01, 1.0, log=True)] = 0.1

    def modules(self, width: int, classes: int) -> nn.Module | None:
        return discriminator(width) if self.strength else None

    def align(
        self, forward: Forward, source: Tensor, target: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return confusion(forward.own(self), source, target, self.strength * rising(progress))
