"""MAML (Finn et al. 2017): the weights from which a few steps of gradient descent lead to a small loss on other rows.

With phi_k(theta) the weights after k steps on an episode's support, the outer gradient is
d L_query(phi_k(theta)) / d theta. `second` order is exact: it goes through the steps, whose gradients depend on theta
as well. `first` order takes those for constants (the paper's section 5.2; FOMAML): d phi_k / d theta is the identity.
In both, what an episode's last layer begins with is a function of theta, as in proto-MAML (Triantafillou et al. 2020);
without steps, and with prototypes, this is the training of prototypical networks (Snell et al. 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from bothways.joint.meta import Episode, Learner, Meta, adapt
from bothways.lazy import torch
from bothways.registry import META, Choices

if TYPE_CHECKING:
    from torch import Tensor


@META.register("maml")
class Maml(Meta):
    """`order`: `second` costs about three times as much as `first`, and memory for all steps at once."""

    term = "model-agnostic meta-learning"
    source = "Finn et al. 2017"

    order: Annotated[Literal["first", "second"], Choices("first", "second")] = "first"

    def gradient(self, learner: Learner, episode: Episode, steps: int, share: float) -> Tensor:
        start = learner.start(learner.own(), episode.support)
        adapted = adapt(learner, start, [episode.support], steps, exact=self.order == "second")
        loss = learner.loss(adapted, episode.query)
        torch.autograd.backward(share * loss)
        return loss.detach()
