"""Adversarial training on the input embeddings: rows must also be right in the worst direction nearby.

x are the embeddings of a row, d a perturbation of them, g the gradient of CE(x + d) with respect to d:
- `fgm` (Miyato et al. 2017): L = CE(x) + beta * CE(x + d) with one step from the clean point, d = lr * g / ||g||.
- `pgd` (Madry et al. 2018, in the form of Zhu et al. 2020): the same L; d starts uniform in a cube of half side
  init_mag / sqrt(T_i H); then `steps` times d <- d + lr * g / ||g||, pulled back to ||d|| <= max_norm (0: no limit).
- `freelb` (Zhu et al. 2020, algorithm 1): L = 1/K sum_t CE(x + d_t), t = 0 … K-1, K = `steps`, d_t as in pgd. A pass
  gives the gradient for the parameters and the next step at once, so that K steps cost K passes.
- `smart` (Jiang et al. 2020): L = CE(x) + beta * (KL(p || q) + KL(q || p)), p at x and q at x + d. d starts normal with
  standard deviation init_mag; then `steps` times d <- d + lr * g / ||g||, g now that of KL(p || q), ||.|| the largest
  entry of a token, to which 1e-6 is added. max_norm is the largest entry of d. The paper pulls d back to 1e-5, the
  authors' code not at all; it takes one step of 1e-3 and starts it without the noise. We take the code's numbers, the
  paper's start and its gradient, which goes through both arguments of either KL; the code keeps it from the first.
- `vat` (Miyato et al. 2017, 2018): L = CE(x) + beta * KL(p || q), no gradient into p: no label is needed. d starts
  in a random direction; `steps` times d <- the gradient of that KL at init_mag * d / ||d||; x + lr * d / ||d|| is what
  counts. The KL is a mean over the batch's rows and `per_row` unlabelled ones for each of them.
Norms are L2 per row, over its T_i real tokens and H dimensions, where nothing else is said; padding is never perturbed.

Dropout: freelb and vat keep one mask for all their passes (Zhu et al., section 3.3), so that vat's divergence shows the
perturbation and nothing else. fgm, pgd and smart draw another mask for each pass (fgm and pgd for the clean and the
perturbed half of the last one, too): their d is the worst direction for a random sub-network. So does the code of
smart's authors, and that is what makes it work: noise of 1e-5 alone changes a prediction by less than fp32 resolves.
Without any dropout smart needs a larger init_mag.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bothways.contracts import Batch, Beside, Forward, Loss, TaskLike
from bothways.lazy import functional, torch
from bothways.output_side.objectives import ANY, PLAIN, Objective, plain
from bothways.output_side.perturbation import (
    TINY,
    added,
    carrying,
    divergence,
    gradient,
    in_cube,
    norm,
    pulled_back,
    real_tokens,
    same_dropout,
)
from bothways.registry import OBJECTIVES, Choices, Range
from bothways.task_contract import Logits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    RowLosses = Callable[[Tensor], Tensor]

OWN_DEFAULTS: dict[str, dict[str, float]] = {
    "freelb": {"steps": 3},
    "smart": {"lr": 1e-3, "init_mag": 1e-5},
    "vat": {"lr": 0.5, "init_mag": 0.1},
}
"""Where a method's default is not the field's."""
SMART_EPSILON = 1e-6


@OBJECTIVES.register("adversarial")
class Adversarial(Objective):
    """`steps`: gradient steps that look for the perturbation (freelb: 3). `lr`: length of one, in embedding units
    (smart: 0.001; vat: 0.5, of the perturbation).

    `init_mag`: size of the random start (smart: 0.00001; vat: 0.1). `max_norm`: largest perturbation of a row, 0 for no
    limit. `beta`: weight of the perturbed rows' loss, or of the divergence from it. fgm has one step, no `init_mag`, no
    `max_norm`; freelb no `beta`, vat no `max_norm`. `per_row`: unlabelled rows that vat reads for each of the batch.
    """

    term = "adversarial training; smoothness-inducing and virtual adversarial regularisation"
    source = (
        "FGM, Miyato et al. 2017; PGD, Madry et al. 2018; FreeLB, Zhu et al. 2020; SMART, Jiang et al. 2020; "
        "VAT, Miyato et al. 2018"
    )
    neutral: ClassVar[Mapping[str, Any]] = {"steps": 0}

    method: Annotated[
        Literal["fgm", "pgd", "freelb", "smart", "vat"], Choices("fgm", "pgd", "freelb", "smart", "vat")
    ] = "fgm"
    steps: Annotated[int, Field(ge=0, le=16), Range(2, 4)] = 1
    lr: Annotated[float, Field(gt=0.0), Range(0.03, 0.3, log=True)] = 0.1
    init_mag: Annotated[float, Field(ge=0.0), Range(0.0, 0.6)] = 0.0
    max_norm: Annotated[float, Field(ge=0.0), Choices(0.0, 0.7)] = 0.0
    beta: Annotated[float, Field(ge=0.0), Range(0.25, 1.0)] = 1.0
    per_row: Annotated[int, Field(ge=0, le=16), Range(0, 4)] = 0

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, knobs: Any) -> Any:
        method = knobs.get("method") if isinstance(knobs, dict) else None
        return {**OWN_DEFAULTS[method], **knobs} if isinstance(method, str) and method in OWN_DEFAULTS else knobs

    @model_validator(mode="after")
    def _knobs_of_its_method(self) -> Adversarial:
        if self.method == "fgm" and (self.steps > 1 or self.init_mag or self.max_norm):
            raise ValueError("fgm takes one step from the clean point: steps, init_mag and max_norm need method: pgd")
        if self.method == "freelb" and self.beta != 1:
            raise ValueError("freelb has no beta, all its steps weigh the same: leave it out, or take method: pgd")
        if self.method != "vat" and self.per_row:
            raise ValueError(f"{self.method} needs labels: unlabelled rows (per_row) need method: vat")
        if self.method == "vat" and self.max_norm:
            raise ValueError("vat has no max_norm: lr is the length of its perturbation")
        if self.method == "vat" and not self.init_mag:
            raise ValueError("vat looks around the clean point, where its gradient is 0: init_mag must be above 0")
        return self

    @property
    def logits(self) -> tuple[Logits, ...]:
        return ("classes",) if self.method in ("smart", "vat") else ANY

    @property
    def passes(self) -> tuple[int, int]:
        if not self.steps or not self.beta:
            return PLAIN
        passes = self.steps if self.method == "freelb" else (self.steps + 2) * (1 + self.per_row)
        return passes, passes

    @property
    def beside(self) -> Beside | None:
        return Beside(per_row=self.per_row) if self.per_row and self.steps and self.beta else None

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if not self.steps or not self.beta:
            return plain(forward, batch, task)
        if self.method == "freelb":
            return self._freelb(forward, batch, task)
        if self.method in ("smart", "vat"):
            return self._divergence(forward, batch, task)
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
        real = real_tokens(batch, clean)
        found = in_cube(clean, real, self.init_mag)
        for _ in range(self.steps):
            uphill = gradient(lambda at: task.row_losses(forward.inner(batch, clean + at), batch), found, real)
            found = self._step(found, uphill)
        return found

    def _step(self, found: Tensor, uphill: Tensor) -> Tensor:
        found = found + self.lr * uphill / norm(uphill).clamp_min(TINY)
        return pulled_back(found, norm(found), self.max_norm)

    def _freelb(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        clean = forward.embed(batch)
        real = real_tokens(batch, clean)
        found = in_cube(clean.detach(), real, self.init_mag)
        moved = (clean, *forward.parameters())  # the gradient for an embedding is that for what is added to it
        gathered: tuple[Tensor | None, ...] = (None,) * len(moved)
        losses = []
        for _ in range(self.steps - 1):
            at = (clean.detach() + found).requires_grad_()
            with same_dropout(clean.device):
                loss = task.row_losses(forward.inner(batch, at), batch).mean()
            gradients = torch.autograd.grad(loss / self.steps, (at, *moved[1:]), allow_unused=True)
            found = self._step(found, gradients[0] * real)
            gathered = added(gathered, gradients)
            losses.append(loss.detach())
        last = task.row_losses(forward(batch, clean + found), batch).mean()
        losses.append(last.detach())
        total = carrying(last / self.steps, moved, gathered) + sum(losses[:-1]) / self.steps
        return Loss(total=total, parts={"supervised": losses[0], "perturbed": losses[-1]})

    def _divergence(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        every = batch.join(*batch.beside[self.beside]) if self.beside else batch
        clean = forward.embed(every)
        real = real_tokens(every, clean)
        noise = torch.randn_like(clean) * real  # before any pass, so that vat's can draw their dropout alike
        with self._dropout(clean.device):
            logits = forward(every, clean)
        log_p = functional.log_softmax(logits, dim=-1)

        def log_q(embeddings: Tensor) -> Tensor:
            return functional.log_softmax(forward.inner(every, embeddings), dim=-1)

        def apart(found: Tensor) -> Tensor:
            with self._dropout(clean.device):
                return divergence(log_p.detach(), log_q(clean.detach() + found))

        find = self._by_power if self.method == "vat" else self._by_climbing
        perturbed = log_q(clean + find(apart, noise, real))
        between = divergence(log_p.detach() if self.method == "vat" else log_p, perturbed)
        if self.method == "smart":
            between = between + divergence(perturbed, log_p)
        hard = task.row_losses(logits[: len(batch)], batch).mean()
        return Loss(
            total=hard + self.beta * between.mean(),
            parts={"supervised": hard.detach(), "divergence": between.detach().mean()},
        )

    def _dropout(self, device: torch.device) -> AbstractContextManager[None]:
        return same_dropout(device) if self.method == "vat" else nullcontext()

    def _by_power(self, apart: RowLosses, found: Tensor, real: Tensor) -> Tensor:
        for _ in range(self.steps):
            found = gradient(apart, self.init_mag * found / norm(found).clamp_min(TINY), real)
        return self.lr * found / norm(found).clamp_min(TINY)

    def _by_climbing(self, apart: RowLosses, found: Tensor, real: Tensor) -> Tensor:
        found = self.init_mag * found
        for _ in range(self.steps):
            uphill = gradient(apart, found, real)
            found = found + self.lr * uphill / (uphill.abs().amax(dim=-1, keepdim=True) + SMART_EPSILON)
            found = found.clamp(-self.max_norm, self.max_norm) if self.max_norm else found
        return found
