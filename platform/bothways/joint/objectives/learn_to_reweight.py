"""Learning to reweight examples (Ren et al. 2018): a row counts as much as it helps on rows that can be trusted.

Suppose one step of gradient descent on the batch with weights e_i: theta'(e) = theta - lr * grad sum_i e_i l_i(theta).
The weights of the rows are how the mean loss V of the trusted rows after that step falls with them, at e = 0:

u_i = max(0, -dV(theta'(e)) / de_i),  w_i = u_i / sum_j u_j (0 where all are 0),  L = sum_i w_i l_i

At e = 0 the derivative through the step is exactly -lr * <grad l_i, grad V>, and lr cancels in w_i. So there is no step
to take and to undo: V has one backward pass, and forward-mode differentiation along its gradient gives the products of
all rows. `layers: head` takes them over the last linear layer only, which needs no such pass through the others.
L = sum_i ((1 - strength) / N + strength * w_i) l_i keeps a part of every row's loss; the paper's strength is 1.

The paper keeps its trusted rows balanced by class, and `classes: balanced` makes those of every step count so: V is the
mean over the classes among them of each one's mean loss. Without that a step measures which class it drew too many of:
what all rows have in common, the head's bias for one, is in every product with the sign of that surplus, and the rows
of one class get most of the weight, wrong labels or not. For labels that are no classes V is the plain mean.

The passes for weights are without dropout: they are about the model, not about a part of it drawn at random. The pass
that is trained on has it. The sums are over the batch of all workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bothways.contracts import Batch, Beside, Forward, Loss, TaskLike
from bothways.lazy import torch
from bothways.output_side.objectives import ANY, PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Choices, Range
from bothways.task_contract import Logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@OBJECTIVES.register("learn_to_reweight")
class LearnToReweight(Objective):
    """`strength`: share of the loss that is weighed; the rest is plain. `rows`: which are trusted; the `labelled`
    training rows as they stand in the data, which judges augmented copies, or the `clean` ones of `data.clean_source`,
    which judges labels. `per_row`: of them for each row of the batch. `classes`: whether those of a step's trusted rows
    count alike, or as often as they were `drawn`. `layers`: over which the gradients are compared.
    """

    term = "meta-learned example weights"
    source = "Ren et al. 2018"
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0, le=1.0), Range(0.2, 1.0)] = 1.0
    rows: Literal["labelled", "clean"] = "labelled"
    per_row: Annotated[int, Field(ge=1, le=16), Range(1, 4)] = 1
    classes: Literal["balanced", "drawn"] = "balanced"
    layers: Annotated[Literal["all", "head"], Choices("all", "head")] = "all"

    @property
    def logits(self) -> tuple[Logits, ...]:
        return ANY

    @property
    def passes(self) -> tuple[int, int]:
        """The forward-mode pass counts as a forward and a backward one; over the head it is a forward pass."""
        if not self.strength:
            return PLAIN
        return 2 + self.per_row, 2 + self.per_row if self.layers == "all" else 1

    @property
    def beside(self) -> Beside | None:
        return Beside(source=self.rows, per_row=self.per_row) if self.strength else None

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.beside is None:
            return plain(forward, batch, task)
        (trusted,) = batch.beside[self.beside]
        shares = _alike(forward, trusted.labels) if self.classes == "balanced" else None
        helps = forward.agreement(batch, trusted, task, head=self.layers == "head", shares=shares).clamp_min(0)
        everyone = forward.gather(helps)
        total = everyone.sum()
        # A worker's loss is a mean over its own rows, and the workers' are averaged: N rows have the weights 1 / N.
        weights = len(everyone) * helps / torch.where(total > 0, total, torch.ones_like(total))
        hard = task.row_losses(forward(batch), batch)
        weighed = (weights.to(hard.dtype) * hard).mean()
        supervised = hard.mean()
        return Loss(
            total=(1 - self.strength) * supervised + self.strength * weighed,
            parts={
                "supervised": supervised.detach(),
                "weighed": weighed.detach(),
                "without_weight": (helps == 0).to(hard.dtype).mean(),
            },
        )


def _alike(forward: Forward, labels: Tensor) -> Tensor | None:
    """The share of each trusted row in their mean, (N,), 1 on average over all workers, with which every class that is
    among them counts alike; None if the labels are not one class a row."""
    if labels.dim() > 1 or labels.is_floating_point():
        return None
    everyone = forward.gather(labels)
    classes, counts = everyone.unique(return_counts=True)
    return len(everyone) / (len(classes) * counts[torch.searchsorted(classes, labels)])
