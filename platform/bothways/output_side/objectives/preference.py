"""Direct preference optimisation (DPO, Rafailov et al. 2023): of two answers, the better one shall become likelier.

L = supervised * CE + strength * 1/M sum_j -log sigmoid(beta * (d(chosen_j) - d(rejected_j))), over M rows of
`data.feedback` beside the batch; d(y) = log p(y|x) - log p_before(y|x), summed over the answer's tokens, p_before the
model as it was before training (equation 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Beside, Forward, Loss, TaskLike
from bothways.lazy import functional, torch
from bothways.output_side.answers import token_log_probabilities
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Range
from bothways.task_contract import Logits

if TYPE_CHECKING:
    from collections.abc import Mapping


@OBJECTIVES.register("preference")
class Preference(Objective):
    """`strength`: of the preferences, `supervised`: of the cross-entropy beside them. `beta`: how dear it is to move
    away from the model before training. `per_row`: pairs of answers for each row of the batch.
    """

    term = "preference learning, DPO"
    source = "Rafailov et al. 2023"
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0), Range(0.1, 5.0, log=True)] = 1.0
    beta: Annotated[float, Field(gt=0.0), Range(0.05, 0.5, log=True)] = 0.1
    per_row: Annotated[int, Field(ge=1, le=16), Range(1, 4)] = 1
    supervised: Annotated[float, Field(ge=0.0), Range(0.0, 1.0)] = 1.0

    @property
    def logits(self) -> tuple[Logits, ...]:
        return ("classes", "tokens")

    @property
    def recalls(self) -> bool:
        return self.strength > 0

    @property
    def passes(self) -> tuple[int, int]:
        return (1 + 4 * self.per_row, 1 + 2 * self.per_row) if self.strength else PLAIN

    @property
    def beside(self) -> Beside | None:
        if not self.strength:
            return None
        return Beside(source="feedback", per_row=self.per_row, parts=("chosen", "rejected"))

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.beside is None:
            return plain(forward, batch, task)
        chosen, rejected = batch.beside[self.beside]
        both = batch.join(chosen, rejected)
        logits, of_pairs = forward(both).tensor_split([len(batch)])
        pairs = both.slice(len(batch), len(both))
        ours = token_log_probabilities(of_pairs, pairs.labels).sum(dim=1)
        before = token_log_probabilities(forward.reference(pairs), pairs.labels).sum(dim=1)
        better, worse = (ours - before).chunk(2)
        margin = self.beta * (better - worse)
        hard = task.row_losses(logits, both.slice(0, len(batch))).mean()
        preferred = -functional.logsigmoid(margin).mean()
        return Loss(
            total=self.supervised * hard + self.strength * preferred,
            parts={
                "supervised": hard.detach(),
                "preference": preferred.detach(),
                "margin": margin.detach().mean(),
                "preferred": (margin.detach() > 0).to(torch.float32).mean(),
            },
        )
