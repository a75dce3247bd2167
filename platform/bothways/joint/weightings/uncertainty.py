"""Homoscedastic uncertainty (Kendall et al. 2018): the weights are learned, each term's by how noisy it is.

L = sum_k w_k (exp(-s_k) L_k + s_k / 2), with s_k = log sigma_k^2 learned from 0 on; w_k are the experiment's weights.
This is the paper's form for cross-entropy, L / sigma^2 + log sigma (equation 10). Its code, and its section 3.2, learn
the logarithm of the variance, which needs no bound. A loss that falls towards 0 makes its own weight grow without end;
`limit` holds s_k within [-limit, limit].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bothways.contracts import Collective
from bothways.joint.weightings import Weigher, Weighting
from bothways.lazy import torch
from bothways.registry import WEIGHTINGS, Choices

if TYPE_CHECKING:
    from torch import Tensor


@WEIGHTINGS.register("uncertainty")
class Uncertainty(Weighting):
    """`limit`: of the logarithm of a variance, either way: 3 lets a weight change by a factor of 20."""

    term = "homoscedastic uncertainty weighting"
    source = "Kendall et al. 2018"

    limit: Annotated[float, Field(gt=0.0), Choices(3.0)] = 3.0

    def weigher(self, weights: Sequence[float], shared: Tensor, collective: Collective) -> Weigher:
        return _Learned(weights, self.limit, shared)


class _Learned(Weigher):
    def __init__(self, weights: Sequence[float], limit: float, like: Tensor) -> None:
        super().__init__(log_variance=like.new_zeros(len(weights)))
        self._weights, self._limit = weights, limit
        self.own.requires_grad_(True)

    def _log_variance(self) -> Tensor:
        """In its bounds, to which it is brought back: outside of them it would have no gradient to return by."""
        learned: Tensor = self.own["log_variance"]  # type: ignore[index]
        with torch.no_grad():
            return learned.clamp_(-self._limit, self._limit)

    def weights(self) -> Sequence[float]:
        learned = self._log_variance().detach().neg().exp().tolist()
        return [stated * factor for stated, factor in zip(self._weights, learned, strict=True)]

    def weigh(self, number: int, loss: Tensor, share: float) -> Tensor:
        log_variance = self._log_variance()[number]
        return self._weights[number] * share * (torch.exp(-log_variance) * loss + log_variance / 2)
