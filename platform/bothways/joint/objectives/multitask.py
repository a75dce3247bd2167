"""Multi-task fine-tuning (MT-DNN, Liu et al. 2019): one encoder, a head for each task.

L = CE + strength * 1/M sum_j -log p_k(j)(y_j | x_j)

over M rows x beside the batch, which are of the auxiliary tasks that `data.tasks` names: k(j) is the task of row j, and
p_k the softmax of that task's own linear head on the features of which the model makes its prediction. The heads are
trained with the model and are not saved with it.

The paper takes a batch of one task in each step, tasks in proportion to their rows; here every step has our own task's
batch, and the others beside it are mixed. A task of n rows has a part in proportion to n^(1/temperature) of them.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from bothways.contracts import Batch, Beside, Forward, Loss, TaskLike
from bothways.lazy import functional, torch
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn


@OBJECTIVES.register("multitask")
class Multitask(Objective):
    """`strength`: weight of the auxiliary tasks' loss. `per_row`: of their rows for each row of the batch.
    `temperature`: 1 draws their rows alike, a high one their tasks. `classes`: of each task; found by itself.
    """

    term = "multi-task learning, auxiliary tasks"
    source = "MT-DNN, Liu et al. 2019; temperature, Arivazhagan et al. 2019"
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0), Range(0.1, 2.0, log=True)] = 1.0
    per_row: Annotated[int, Field(ge=1, le=16), Range(1, 4)] = 1
    temperature: Annotated[float, Field(ge=1.0), Range(1.0, 5.0)] = 1.0
    classes: tuple[Annotated[int, Field(ge=2)], ...] = ()

    @property
    def passes(self) -> tuple[int, int]:
        return (1 + self.per_row, 1 + self.per_row) if self.strength else PLAIN

    @property
    def beside(self) -> Beside | None:
        if not self.strength:
            return None
        return Beside(source="auxiliary", per_row=self.per_row, temperature=self.temperature)

    def for_tasks(self, classes: Sequence[int]) -> Self:
        return self.model_copy(update={"classes": tuple(classes)})

    def modules(self, width: int, classes: int) -> nn.Module | None:
        """All heads as one linear layer: each is some of its rows."""
        if not self.strength:
            return None
        assert self.classes, "for_tasks has not been asked"
        return torch.nn.Linear(width, sum(self.classes))

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.beside is None:
            return plain(forward, batch, task)
        (others,) = batch.beside[self.beside]
        found = forward.outputs(batch.join(others))
        hard = task.row_losses(found.logits[: len(batch)], batch).mean()
        logits = self._of_its_task(forward.own(self)(found.features[len(batch) :]), others.labels)
        auxiliary = functional.cross_entropy(logits, others.labels)
        right = (logits.argmax(dim=1) == others.labels).to(auxiliary.dtype).mean()
        return Loss(
            total=hard + self.strength * auxiliary,
            parts={"supervised": hard.detach(), "auxiliary": auxiliary.detach(), "auxiliary_right": right},
        )

    def _of_its_task(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (M, all classes) with those of other tasks than a row's own out of the question."""
        ends = torch.tensor(list(accumulate(self.classes)), device=labels.device)
        task_of = torch.bucketize(torch.arange(len(logits[0]), device=labels.device), ends, right=True)
        return logits.masked_fill(task_of[None, :] != task_of[labels][:, None], -torch.inf)
