"""Knowledge distillation (Hinton et al. 2015): the model learns what a trained one, or several, think of its rows.

L = (1 - alpha) * CE + alpha * T^2 * 1/N sum_i KL(q_i || p_i), p = softmax(z / T) and q the mean over the teachers of
softmax(z_teacher / T). T^2 keeps the gradient of the second term on the scale of the first whatever T is (section 2).
Of the two ways in which the paper joins an ensemble this is the arithmetic mean.

A teacher is a saved or exported model. It reads the batch as the student does, its changed texts too, without
dropout, so it must have the student's tokenizer and the same labels. It is known by its content: `digests` stand beside
its path in the experiment's identity, are taken when the experiment is made, and are held against the files when they
are loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from bothways.contracts import Batch, Forward, Loss, TaskLike, Teacher
from bothways.lazy import functional, torch
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.output_side.teacher import content
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping


@OBJECTIVES.register("distillation")
class Distillation(Objective):
    """`alpha`: weight of what the teachers think, the rest is for the labels (0.5 where there are teachers, and no
    alpha). `temperature`: a high one shows what they think of unlikely classes. `teachers`: directories of saved or
    exported models. `digests`: of their content; found by itself.
    """

    term = "knowledge distillation"
    source = "Hinton et al. 2015"
    neutral: ClassVar[Mapping[str, Any]] = {"alpha": 0.0}

    alpha: Annotated[float, Field(ge=0.0, le=1.0), Range(0.1, 1.0)] = 0.0
    temperature: Annotated[float, Field(gt=0.0), Range(1.0, 8.0, log=True)] = 2.0
    teachers: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _known_by_content(cls, knobs: Any) -> Any:
        teachers = knobs.get("teachers") if isinstance(knobs, dict) else None
        if not isinstance(teachers, list | tuple) or not all(isinstance(path, str) for path in teachers):
            return knobs
        knobs = {"alpha": 0.5 if teachers else 0.0, **knobs}
        if knobs["alpha"] and not knobs.get("digests"):
            knobs["digests"] = tuple(content(path) for path in teachers)
        return knobs

    @model_validator(mode="after")
    def _has_teachers(self) -> Distillation:
        if self.alpha and not self.teachers:
            raise ValueError("needs `teachers`, a list of directories of saved or exported models")
        if self.alpha and len(self.digests) != len(self.teachers):
            raise ValueError(f"has {len(self.digests)} digests for {len(self.teachers)} teachers: leave `digests` out")
        return self

    @property
    def taught_by(self) -> tuple[Teacher, ...]:
        return tuple(map(Teacher, self.teachers, self.digests)) if self.alpha else ()

    @property
    def passes(self) -> tuple[int, int]:
        forward, backward = PLAIN  # a teacher's pass counts as one of the student's
        return forward + len(self.taught_by), backward

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if not self.alpha:
            return plain(forward, batch, task)
        logits = forward(batch)
        said = [(batch.taught[teacher] / self.temperature).softmax(dim=-1) for teacher in self.taught_by]
        target = torch.stack(said).mean(dim=0)
        ours = functional.log_softmax(logits / self.temperature, dim=-1)
        apart = functional.kl_div(ours, target, reduction="none").sum(dim=-1).mean()
        hard = task.row_losses(logits, batch).mean()
        return Loss(
            total=(1 - self.alpha) * hard + self.alpha * self.temperature**2 * apart,
            parts={"supervised": hard.detach(), "divergence": apart.detach()},
        )
