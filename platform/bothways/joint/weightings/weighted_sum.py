"""Weighted sum: L = sum_k w_k L_k, with the weights that the experiment states and a search may choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bothways.contracts import Collective
from bothways.joint.weightings import Weigher, Weighting
from bothways.registry import WEIGHTINGS

if TYPE_CHECKING:
    from torch import Tensor


@WEIGHTINGS.register("weighted_sum")
class WeightedSum(Weighting):
    term = "multi-task learning by scalarisation"

    def weigher(self, weights: Sequence[float], shared: Tensor, collective: Collective) -> Weigher:
        return _Fixed(weights)


class _Fixed(Weigher):
    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self._weights = weights

    def weights(self) -> Sequence[float]:
        return self._weights

    def weigh(self, number: int, loss: Tensor, share: float) -> Tensor:
        return self._weights[number] * share * loss
