"""Supervised contrastive learning (Gunel et al. 2021): rows of one class close together, those of others apart.

L = (1 - share) * CE + share * 1/N sum_i S_i,
S_i = -1/|P_i| sum_{j in P_i} log( exp(f_i f_j / t) / sum_{k != i} exp(f_i f_k / t) ),
f the features at unit length, t the temperature, P_i the other rows of the batch with the class of row i, copies of i
among them. A row without any (P_i empty) contributes nothing.

The paper adds S_i up over a batch, but takes the mean of CE; ours is a mean of both, so that `share` means the same at
every batch size. Its features are the encoder's, at [CLS]; ours are what the last linear layer reads.

It is in-batch by nature: with `accumulate` or several workers a row sees the rows of its own slice only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.lazy import functional, torch
from bothways.output_side.objectives import Objective, plain
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@OBJECTIVES.register("supervised_contrastive")
class SupervisedContrastive(Objective):
    """`share`: of the contrastive loss, the rest is cross-entropy. `temperature`: a low one dwells on near rows."""

    term = "supervised contrastive learning"
    source = "Gunel et al. 2021; SupCon, Khosla et al. 2020"
    neutral: ClassVar[Mapping[str, Any]] = {"share": 0.0}

    share: Annotated[float, Field(ge=0.0, le=1.0), Range(0.1, 0.9)] = 0.5
    temperature: Annotated[float, Field(gt=0.0), Range(0.1, 0.7)] = 0.3

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.share == 0:
            return plain(forward, batch, task)
        outputs = forward.outputs(batch)
        hard = task.row_losses(outputs.logits, batch).mean()
        apart = self._row_losses(outputs.features, batch.labels).mean()
        return Loss(
            total=(1 - self.share) * hard + self.share * apart,
            parts={"supervised": hard.detach(), "contrastive": apart.detach()},
        )

    def _row_losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """S_i of every row, (N,)."""
        unit = functional.normalize(features, dim=-1)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        scores = (unit @ unit.T / self.temperature).masked_fill(itself, torch.finfo(unit.dtype).min)
        log_shares = scores.log_softmax(dim=-1)
        same = (labels[:, None] == labels) & ~itself
        return -log_shares.where(same, 0.0).sum(dim=-1) / same.sum(dim=-1).clamp_min(1)
