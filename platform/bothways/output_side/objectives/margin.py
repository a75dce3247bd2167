"""Additive-margin softmax (Wang et al. 2018): a row counts as right only if its class leads by a margin.

L = CE(z'), z'_iy = z_iy - m |w_y| |f_i| for the row's own class y and z'_ic = z_ic for the others. Since
z_ic = |w_c| |f_i| cos(w_c, f_i) + b_c, with f the features and w the weights of the last linear layer, cos - m stands
in place of cos.

The paper normalises both, drops the bias and multiplies by one scale s. A model so trained has to predict so too, and
its neutral setting is not cross-entropy; ours predicts by its logits as it is, and the scale of each row and class is
their own. No gradient goes through |w_y| |f_i| in the margin: as with a fixed s, shrinking them cannot buy it off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.lazy import functional
from bothways.output_side.objectives import Objective, plain
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping


@OBJECTIVES.register("margin")
class Margin(Objective):
    """`m`: by how much the cosine of the right class has to lead."""

    term = "additive-margin softmax"
    source = "AM-Softmax, Wang et al. 2018"
    neutral: ClassVar[Mapping[str, Any]] = {"m": 0.0}

    m: Annotated[float, Field(ge=0.0, le=2.0), Range(0.05, 0.5)] = 0.35

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.m == 0:
            return plain(forward, batch, task)
        outputs = forward.outputs(batch)
        scale = outputs.weights.detach().norm(dim=-1)[batch.labels] * outputs.features.detach().norm(dim=-1)
        own = functional.one_hot(batch.labels, outputs.logits.shape[-1])
        hard = task.row_losses(outputs.logits - self.m * scale[:, None] * own, batch).mean()
        supervised = task.row_losses(outputs.logits.detach(), batch).mean()
        return Loss(total=hard, parts={"supervised": supervised, "margin": hard.detach()})
