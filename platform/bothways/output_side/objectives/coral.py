"""Correlation alignment (Sun & Saenko 2016): the features of two domains shall have the same covariance.

L = CE(source) + strength * ||C_S - C_T||_F² / (4 H² u²), C the covariances of the features (H of them) of the labelled
rows, the source, and of the unlabelled text beside them, the target. They are of the rows of a step, on all workers.
u is the mean variance of a feature, without a gradient. The paper has no u: where features vary by a hundredth, as
those of a new pooling layer do, its term is 10^-8 and useful weights differ from model to model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bothways.contracts import Forward
from bothways.output_side.alignment import Alignment, statistic
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from torch import Tensor


@OBJECTIVES.register("coral")
class Coral(Alignment):
    """`strength`: of the distance. `per_row`: unlabelled rows for each row of the batch."""

    term = "domain alignment by second moments"
    source = "Deep CORAL, Sun & Saenko 2016"

    strength: Annotated[float, Field(ge=0.0), Range(0.3, 30.0, log=True)] = 3.0

    def align(
        self, forward: Forward, source: Tensor, target: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        apart = statistic("coral", forward, source, target)
        return self.strength * apart, {"distance": apart.detach()}
