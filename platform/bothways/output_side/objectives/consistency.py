"""Consistency training (UDA, Xie et al. 2020): a changed text should get the prediction of the text as it was.

L = CE + strength * 1/M sum_j m_j KL(q(u_j) || p(u'_j)), over M rows u beside the batch, u' their changed copies.
q is the model's own prediction for u, without a gradient, sharpened: softmax(z / temperature). m_j is 1 where the
prediction's largest probability is at least `confidence`, else 0. Both passes have dropout, as in the released code.

Training signal annealing (section 2.2 of the paper): labelled rows whose true class the model gives a probability above
a threshold are left out of CE, so that few labels are not learned by heart at once. The threshold goes from 1/C to 1 in
the course of the training, linearly, late (`exp`) or early (`log`). The paper divides by the rows that stay, we by all:
a row's gradient then does not depend on which rows share its batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bothways.contracts import Batch, Beside, Forward, Loss, TaskLike
from bothways.lazy import functional, torch
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Choices, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@OBJECTIVES.register("consistency")
class Consistency(Objective):
    """`strength`: weight of the divergence. `rows`: whose; the data's unlabelled text, or the labelled rows over again.
    `per_row`: of them for each row of the batch. `temperature`: below 1 sharpens the target. `confidence`: a target
    less sure counts nothing. `annealing`: of the training signal.
    """

    term = "consistency training, unsupervised data augmentation"
    source = "UDA, Xie et al. 2020"
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0), Range(0.1, 5.0, log=True)] = 1.0
    rows: Annotated[Literal["unlabelled", "labelled"], Choices("unlabelled", "labelled")] = "unlabelled"
    per_row: Annotated[int, Field(ge=1, le=16), Range(1, 4)] = 1
    temperature: Annotated[float, Field(gt=0.0, le=1.0), Range(0.4, 1.0)] = 0.4
    confidence: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.9)] = 0.8
    annealing: Annotated[Literal["none", "linear", "exp", "log"], Choices("none", "linear", "exp")] = "none"

    @property
    def passes(self) -> tuple[int, int]:
        return (1 + 2 * self.per_row, 1 + self.per_row) if self.strength else PLAIN

    @property
    def beside(self) -> Beside | None:
        return Beside(source=self.rows, per_row=self.per_row, changed=True) if self.strength else None

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.beside is None:
            return plain(forward, batch, task)
        originals, changed = batch.beside[self.beside]
        with torch.no_grad():
            predicted = forward.inner(originals)
            target = (predicted / self.temperature).softmax(dim=-1)
            sure = (predicted.softmax(dim=-1).amax(dim=-1) >= self.confidence).to(target.dtype)
        logits, of_changed = forward(batch.join(changed)).tensor_split([len(batch)])
        hard = task.row_losses(logits, batch)
        kept = self._kept(hard.detach(), logits.shape[-1], batch.progress)
        apart = functional.kl_div(of_changed.log_softmax(dim=-1), target, reduction="none").sum(dim=-1)
        divergence = (sure * apart).mean()
        return Loss(
            total=(kept * hard).mean() + self.strength * divergence,
            parts={
                "supervised": hard.detach().mean(),
                "divergence": divergence.detach(),
                "sure": sure.mean(),
                "kept": kept.mean(),
            },
        )

    def _kept(self, hard: Tensor, classes: int, progress: float) -> Tensor:
        """1 for the rows (N,) whose supervised loss counts at this point of the training, else 0."""
        if self.annealing == "none":
            return torch.ones_like(hard)
        done = {
            "linear": progress,
            "exp": math.exp(5 * (progress - 1)),
            "log": 1 - math.exp(-5 * progress),
        }[self.annealing]
        threshold = done * (1 - 1 / classes) + 1 / classes
        return (hard.neg().exp() < threshold).to(hard.dtype)
