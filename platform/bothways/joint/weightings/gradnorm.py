"""GradNorm (Chen et al. 2018): weights under which all terms learn at like rates.

With g_k the norm of the gradient of L_k with respect to the last shared weights W, G_k = w_k g_k, and r_k how slowly
term k has learned so far, (L_k / L_k(0)) divided by its mean over the terms, the weights move down the gradient of
sum_k |G_k - mean(G) r_k^alpha|, whose targets are held fixed, and are then scaled to the sum they began with. The
paper gives this gradient to an optimiser; it is g_k sign(G_k - target), so a step of `lr` times it, divided by mean(G)
to be free of the scale of the loss, needs none. Norms are those of the whole batch, over all workers.

The paper's losses are above 0. Of a term that may be below (a reward is learned, say) L_k / L_k(0) is at least 0, and 1
throughout where L_k(0) is not above 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bothways.contracts import Collective
from bothways.joint.weightings import Weigher, Weighting
from bothways.lazy import torch
from bothways.registry import WEIGHTINGS, Range

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = 0.01
"""No weight falls below this share of what it began with: a term that counts nothing can never come back."""


@WEIGHTINGS.register("gradnorm")
class GradNorm(Weighting):
    """`alpha`: how strongly slow terms are favoured; 0 makes all gradients equally long. `lr`: of the weights."""

    term = "gradient normalisation"
    source = "Chen et al. 2018"

    alpha: Annotated[float, Field(ge=0.0), Range(0.0, 3.0)] = 1.5
    lr: Annotated[float, Field(gt=0.0, le=1.0), Range(0.005, 0.1, log=True)] = 0.025

    def weigher(self, weights: Sequence[float], shared: Tensor, collective: Collective) -> Weigher:
        return _Balanced(self, weights, shared, collective)


class _Balanced(Weigher):
    def __init__(self, method: GradNorm, weights: Sequence[float], shared: Tensor, collective: Collective) -> None:
        stated = shared.detach().new_tensor(weights)
        super().__init__(weights=stated.clone(), first=torch.full_like(stated, -1.0))
        self._method, self._stated, self._shared, self._collective = method, stated, shared, collective
        self._gradients = [torch.zeros_like(shared) for _ in weights]
        self._losses = torch.zeros_like(stated)

    def weights(self) -> Sequence[float]:
        weights: list[float] = self.own["weights"].tolist()  # type: ignore[index]
        return weights

    def weigh(self, number: int, loss: Tensor, share: float) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, self._shared, retain_graph=True)
        self._gradients[number] += share * gradient
        self._losses[number] += share * loss.detach()
        return self.own["weights"][number] * share * loss  # type: ignore[index, no-any-return]

    @torch.no_grad()
    def settle(self) -> None:
        world, sums = self._collective.world, self._collective.sum
        lengths = torch.stack([(sums(gradient) / world).norm() for gradient in self._gradients])
        losses = sums(self._losses) / world
        weights, first = self.own["weights"], self.own["first"]  # type: ignore[index]
        if bool((first < 0).any()):
            first.copy_(losses.clamp_min(0))
        left = losses.clamp_min(0) / first.clamp_min(1e-12)
        self._move(weights, lengths, left.where(first > 0, torch.ones_like(left)))
        for gradient in self._gradients:
            gradient.zero_()
        self._losses.zero_()

    def _move(self, weights: Tensor, lengths: Tensor, left: Tensor) -> None:
        """One step of the weights (K,). `left`: the share of each term's first loss that is still there."""
        now = weights * lengths
        mean = now.mean()
        if not bool(torch.isfinite(lengths).all()) or float(mean) == 0.0:
            return
        slowness = left / left.mean().clamp_min(1e-12)
        target = mean * slowness**self._method.alpha
        weights -= self._method.lr * lengths / mean * torch.sign(now - target)
        torch.maximum(weights, _LEAST * self._stated, out=weights)
        weights *= self._stated.sum() / weights.sum()
