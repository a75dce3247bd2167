"""Maximum mean discrepancy (Gretton et al. 2012; Long et al. 2015): two domains' features as if from one distribution.

L = CE(source) + strength * MMD²(source, target) between the features of the labelled rows and of the unlabelled text
beside them: mean of k within each domain (pairs of different rows) minus twice the mean of k across them. k is the mean
of five Gaussian kernels around the mean squared distance of the rows, which counts as given. The estimate is unbiased,
of the rows of a step on all workers: where the domains are alike it is 0 in the mean, and below 0 half the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothways.contracts import Forward
from bothways.output_side.alignment import Alignment, statistic
from bothways.registry import OBJECTIVES

if TYPE_CHECKING:
    from torch import Tensor


@OBJECTIVES.register("mmd")
class Mmd(Alignment):
    """`strength`: of the discrepancy. `per_row`: unlabelled rows for each row of the batch."""

    term = "domain alignment by kernel means"
    source = "Gretton et al. 2012; deep adaptation networks, Long et al. 2015"

    def align(
        self, forward: Forward, source: Tensor, target: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        apart = statistic("mmd", forward, source, target)
        return self.strength * apart, {"discrepancy": apart.detach()}
