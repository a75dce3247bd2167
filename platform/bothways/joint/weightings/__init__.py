"""How the terms of a loss are weighed against each other: one file a method. What they share is below."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bothways.contracts import Collective
from bothways.lazy import torch
from bothways.registry import Component

if TYPE_CHECKING:
    from torch import Tensor, nn


class Weigher(ABC):
    """The weights of one training, of K terms: `weigh` is called for every backward pass, `settle` once for each step.

    `own`: what it has learned so far, a part of the training's state; what of it has a gradient is trained like a head.
    """

    def __init__(self, **state: Tensor) -> None:
        self.own: nn.Module = torch.nn.ParameterDict(
            {name: torch.nn.Parameter(value, requires_grad=False) for name, value in state.items()}
        )

    @abstractmethod
    def weights(self) -> Sequence[float]:
        """What each term's loss is multiplied by at this step, (K,)."""

    @abstractmethod
    def weigh(self, number: int, loss: Tensor, share: float) -> Tensor:
        """What to go backward from for the loss of term `number` over a `share` of the batch's rows."""

    def settle(self) -> None:  # noqa: B027 - most have nothing to do
        """All terms' gradients of a step are there, and not yet used."""


class Weighting(Component):
    """What every member is: it makes the weigher of one training."""

    @abstractmethod
    def weigher(self, weights: Sequence[float], shared: Tensor, collective: Collective) -> Weigher:
        """`weights`: of the terms, as the experiment states them. `shared`: the last matrix that every term moves."""
