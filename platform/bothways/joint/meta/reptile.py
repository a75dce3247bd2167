"""Reptile (Nichol et al. 2018): towards the weights that an episode's own training leads to.

The outer gradient is theta - phi_k, for any optimiser; plain descent with a rate of eps is the paper's
theta <- theta + eps (phi_k - theta). It has no use for a query set: its inner steps learn from all of an episode's
rows, a mini-batch of them after another, which is what makes it favour weights whose gradients on different rows agree
(section 5). What the steps do not move is not learned, and neither is the last layer, which every episode begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bothways.joint.meta import Episode, Learner, Meta, adapt, fixed
from bothways.lazy import torch
from bothways.registry import META, Choices

if TYPE_CHECKING:
    from torch import Tensor

    from bothways.contracts import Batch


@META.register("reptile")
class Reptile(Meta):
    """`batch_size`: rows of an inner step, as many of each class as there is room for; null: all of the episode's."""

    term = "first-order meta-learning"
    source = "Nichol et al. 2018"

    batch_size: Annotated[int, Field(ge=1), Choices(None, 5, 10)] | None = None

    def gradient(self, learner: Learner, episode: Episode, steps: int, share: float) -> Tensor:
        start = learner.start(fixed(learner.own()), episode.support)
        batches = self._batches(episode)
        adapted = adapt(learner, start, batches, steps)
        with torch.no_grad():
            for name, value in learner.own().items():
                if value.requires_grad:
                    moved = share * (start[name] - adapted[name])
                    value.grad = moved if value.grad is None else value.grad + moved
            return learner.loss(adapted, batches[-1])

    def _batches(self, episode: Episode) -> Sequence[Batch]:
        rows = episode.support.join(episode.query)
        size = min(self.batch_size or len(rows), len(rows))
        return [rows.slice(start, start + size) for start in range(0, len(rows) - size + 1, size)]
