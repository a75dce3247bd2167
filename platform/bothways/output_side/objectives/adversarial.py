"""Adversarial training on the input embeddings: rows must also be right in the worst direction nearby.

L = CE(x + 0) + beta * CE(x + d), where d makes the loss grow (Miyato et al. 2017):
- `fgm`: one step from the clean point, d = lr * g / ||g||, g the gradient of CE with respect to the embeddings.
- `pgd` (Madry et al. 2018, in the form of Zhu et al. 2020): d starts uniform in a cube of half side
  init_mag / sqrt(T_i H); then `steps` times d <- d + lr * g / ||g||, pulled back to ||d|| <= max_norm (0: no limit).
Norms are taken per row, over its T_i real tokens and H dimensions; padding is never perturbed.

Dropout: the inner passes that find d draw other dropout masks than the final pass that trains on it, and its clean and
perturbed halves draw different ones too. Zhu et al. (2020, section 3.3) keep one mask over all steps instead; here d
is the worst direction for a random sub-network, which is noisier and needs no hooks into the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.lazy import torch
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Choices, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@OBJECTIVES.register("adversarial")
class Adversarial(Objective):
    """`steps`: gradient steps that look for the perturbation. `lr`: length of one, in embedding units.

    `init_mag`: size of the random start. `max_norm`: largest perturbation of a row, 0 for no limit.
    `beta`: weight of the perturbed rows' loss. `init_mag`, `max_norm` and more than one step are of `pgd` only.
    """

    term = "adversarial training"
    source = "FGM, Miyato et al. 2017; PGD, Madry et al. 2018; FreeLB, Zhu et al. 2020"
    neutral: ClassVar[Mapping[str, Any]] = {"steps": 0}

    method: Annotated[Literal["fgm", "pgd"], Choices("fgm", "pgd")] = "fgm"
    steps: Annotated[int, Field(ge=0, le=16), Range(2, 4)] = 1
    lr: Annotated[float, Field(gt=0.0), Range(0.03, 0.3, log=True)] = 0.1
    init_mag: Annotated[float, Field(ge=0.0), Range(0.0, 0.6)] = 0.0
    max_norm: Annotated[float, Field(ge=0.0), Choices(0.0, 0.7)] = 0.0
    beta: Annotated[float, Field(ge=0.0), Range(0.25, 1.0)] = 1.0

    @model_validator(mode="after")
    def _fgm_is_one_step(self) -> Adversarial:
        if self.method == "fgm" and (self.steps > 1 or self.init_mag or self.max_norm):
            raise ValueError("fgm takes one step from the clean point: steps, init_mag and max_norm need method: pgd")
        return self

    @property
    def passes(self) -> tuple[int, int]:
        return (self.steps + 2, self.steps + 2) if self.steps and self.beta else PLAIN

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if not self.steps or not self.beta:
            return plain(forward, batch, task)
        clean = forward.embed(batch)
        perturbed = clean + self._perturbation(forward, batch, task, clean.detach())
        both = batch.repeat(2)
        on_clean, on_perturbed = task.row_losses(forward(both, torch.cat([clean, perturbed])), both).chunk(2)
        return Loss(
            total=on_clean.mean() + self.beta * on_perturbed.mean(),
            parts={"supervised": on_clean.detach().mean(), "perturbed": on_perturbed.detach().mean()},
        )

    def _perturbation(self, forward: Forward, batch: Batch, task: TaskLike, clean: Tensor) -> Tensor:
        """The perturbation (N, T, H) that the steps arrive at, zero on padding."""
        real = batch.inputs["attention_mask"][..., None].to(clean.dtype)
        found = torch.zeros_like(clean)
        if self.init_mag:
            side = self.init_mag / (real.sum(dim=1, keepdim=True) * clean.shape[-1]).sqrt()
            found = torch.empty_like(clean).uniform_(-1, 1) * side * real
        for _ in range(self.steps):
            found.requires_grad_()
            loss = task.row_losses(forward.inner(batch, clean + found), batch).sum()
            (gradient,) = torch.autograd.grad(loss, found)
            gradient = gradient * real
            found = found.detach() + self.lr * gradient / _norm(gradient).clamp_min(1e-12)
            if self.max_norm:
                found = found * (self.max_norm / _norm(found).clamp_min(1e-12)).clamp_max(1)
        return found


def _norm(values: Tensor) -> Tensor:
    """L2 norm of every row of (N, T, H), as (N, 1, 1)."""
    norm: Tensor = torch.linalg.vector_norm(values, dim=(1, 2), keepdim=True)
    return norm
