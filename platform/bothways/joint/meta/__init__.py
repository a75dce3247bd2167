"""From which weights a model learns fast: meta-learning over episodes, one file a method. What they share is below."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bothways.lazy import torch
from bothways.registry import Component

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bothways.contracts import Batch

Parameters = Mapping[str, "Tensor"]
"""All parameters of a model by name."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A task of a few rows, classes numbered from 0. `support`: to learn from; `query`: to be judged by, no row of the
    former. In both, rows are ordered by turns: one of each class, the next of each class, and so on."""

    support: Batch
    query: Batch


class Learner(ABC):
    """A model as a function of its parameters. `module`: whose own parameters are what is meta-learned."""

    module: nn.Module

    @abstractmethod
    def start(self, parameters: Parameters, support: Batch) -> Parameters:
        """Where the adaptation to an episode starts: the parameters, with the last layer that the episode begins with.
        Gradients flow to them."""

    @abstractmethod
    def loss(self, parameters: Parameters, batch: Batch, *, twice: bool = False) -> Tensor:
        """Mean cross-entropy of the rows. `twice`: it will be differentiated twice."""

    @abstractmethod
    def rates(self, step: int) -> Mapping[str, float]:
        """The learning rate of each parameter that moves at inner step `step`."""

    def own(self) -> dict[str, Tensor]:
        """The module's parameters."""
        return dict(self.module.named_parameters())


def adapt(
    learner: Learner, start: Parameters, batches: Sequence[Batch], steps: int, *, exact: bool = False
) -> Parameters:
    """Gradient descent: phi_j = phi_(j-1) - lr dL(phi_(j-1)), from `start`, over the batches in turn.

    `exact`: the steps' gradients are functions of the parameters too; else they are constants, so that the result
    differs from `start` by a constant.
    """
    # Views, because a head that starts from other parameters is no function of them to the steps.
    now = {name: value.view_as(value) for name, value in start.items()}
    for step in range(steps):
        rates = learner.rates(step)
        now |= {name: now[name].detach().requires_grad_() for name in rates if not now[name].requires_grad}
        loss = learner.loss(now, batches[step % len(batches)], twice=exact)
        found = torch.autograd.grad(loss, [now[name] for name in rates], create_graph=exact, allow_unused=True)
        gradients = {name: value for name, value in zip(rates, found, strict=True) if value is not None}
        now |= {name: now[name] - rates[name] * value for name, value in gradients.items()}
    return now


def fixed(parameters: Parameters) -> dict[str, Tensor]:
    """The same values, to which no gradient flows from here on."""
    return {name: value.detach() for name, value in parameters.items()}


class Meta(Component):
    """What every member is: an outer gradient for each episode. `trains`: whether there is any."""

    trains: ClassVar[bool] = True

    @abstractmethod
    def gradient(self, learner: Learner, episode: Episode, steps: int, share: float) -> Tensor:
        """Add `share` times the outer gradient of an episode to the `.grad` of the module's parameters that require
        one. `steps`: of the adaptation. Returns a loss to watch, detached."""
