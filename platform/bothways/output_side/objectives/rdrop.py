"""R-Drop (Liang et al. 2021): two dropout views of every row, each supervised, and kept close to each other.

L = (CE(p1) + CE(p2)) / 2 + alpha * (KL(p1 || p2) + KL(p2 || p1)) / 2, mean over the rows.
The paper (equations 2 to 4) adds the two cross-entropies; its released code halves their sum, so that the loss stays on
the scale of plain cross-entropy. We follow the code: our `alpha` is the code's, half the paper's. Unlike the code's
example, the divergence is a mean over the rows too, so that `alpha` means the same at every batch size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.lazy import functional
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping


@OBJECTIVES.register("rdrop")
class RDrop(Objective):
    """`alpha`: weight of the divergence between the two views. It acts through the model's dropout alone."""

    term = "consistency between dropout views"
    source = "R-Drop, Liang et al. 2021"
    neutral: ClassVar[Mapping[str, Any]] = {"alpha": 0.0}

    alpha: Annotated[float, Field(ge=0.0), Range(0.1, 5.0, log=True)] = 1.0

    @property
    def passes(self) -> tuple[int, int]:
        return (2, 2) if self.alpha else PLAIN

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.alpha == 0:
            return plain(forward, batch, task)
        both = batch.repeat(2)
        logits = forward(both)
        hard = task.row_losses(logits, both).mean()
        log_p, log_q = functional.log_softmax(logits, dim=-1).chunk(2)
        # KL(p||q) + KL(q||p) is the sum over classes of (p - q) (log p - log q).
        apart = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=-1).mean() / 2
        return Loss(
            total=hard + self.alpha * apart,
            parts={"supervised": hard.detach(), "divergence": apart.detach()},
        )
