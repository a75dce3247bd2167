"""Generator and discriminator, semi-supervised: k classes, and one more for what is made up (Croce et al. 2020).

A generator G makes features G(z) out of noise. The discriminator gives features f one of k + 1 classes: the logits of
the k real ones are the model's own (its last layer reads f), that of `made up` is a small network's, own to this
objective, so that the model stays an ordinary classifier. With p(f) the probability of `made up` (Salimans et al.
2016):

L_D = mean -log(1 - p(f)) over the rows of the batch and the unlabelled text beside them + mean -log p(G(z))
L_G = mean -log(1 - p(G(z))) + matching * ||mean h(f) - mean h(G(z))||²
L = CE over the k classes + strength * (L_D + L_G)

h is the small network's hidden layer. One backward pass serves both players: in L_D the features G(z) are detached, in
L_G everything but G is. z is uniform on [-1, 1] and belongs to an unlabelled row and the progress of the training, so
that G makes the same of a row on any worker; there are as many z as unlabelled rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from bothways import seeding
from bothways.contracts import Batch, Beside, Forward, Loss, TaskLike
from bothways.lazy import functional, torch
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_ODD = np.uint64(0x9E3779B97F4A7C15)


@OBJECTIVES.register("gan")
class Gan(Objective):
    """`strength`: weight of both players' losses. `per_row`: unlabelled rows for each row of the batch. `matching`:
    weight of feature matching in the generator's. `noise`: numbers a feature vector is made of.
    """

    term = "generator-discriminator training, semi-supervised GAN"
    source = "Salimans et al. 2016; GAN-BERT, Croce et al. 2020"
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0), Range(0.05, 2.0, log=True)] = 1.0
    per_row: Annotated[int, Field(ge=1, le=16), Range(1, 4)] = 1
    matching: Annotated[float, Field(ge=0.0), Range(0.1, 10.0, log=True)] = 1.0
    noise: Annotated[int, Field(ge=1, le=1024)] = 100

    @property
    def passes(self) -> tuple[int, int]:
        return (1 + self.per_row, 1 + self.per_row) if self.strength else PLAIN

    @property
    def beside(self) -> Beside | None:
        return Beside(source="unlabelled", per_row=self.per_row) if self.strength else None

    def modules(self, width: int, classes: int) -> nn.Module | None:
        if not self.strength:
            return None
        nn = torch.nn
        makes = nn.Sequential(nn.Linear(self.noise, width), nn.LeakyReLU(0.2), nn.Linear(width, width))
        hidden = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.2))
        return nn.ModuleDict({"generator": makes, "hidden": hidden, "made_up": nn.Linear(width, 1)})

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.beside is None:
            return plain(forward, batch, task)
        (unlabelled,) = batch.beside[self.beside]
        found = forward.outputs(batch.join(unlabelled))
        hard = task.row_losses(found.logits[: len(batch)], batch).mean()

        own = forward.own(self)
        hidden, made_up = own.get_submodule("hidden"), own.get_submodule("made_up")
        noise = row_noise(unlabelled, self.noise, batch.progress).to(found.features)
        made = own.get_submodule("generator")(noise)
        seen = made.detach()
        real = _realness(found.logits, made_up(hidden(found.features)))
        fake = _realness(forward.head(seen), made_up(hidden(seen)))
        discriminator = functional.softplus(-real).mean() + functional.softplus(fake).mean()

        of_made = _frozen(hidden, made)
        passed = _realness(forward.head(made, frozen=True), _frozen(made_up, of_made))
        with torch.no_grad():
            of_real = hidden(found.features)
        means = forward.gather(torch.stack([of_real.mean(dim=0), of_made.mean(dim=0)])[None]).mean(dim=0)
        matched = ((means[0] - means[1]) ** 2).sum()
        generator = functional.softplus(-passed).mean() + self.matching * matched
        return Loss(
            total=hard + self.strength * (discriminator + generator),
            parts={
                "supervised": hard.detach(),
                "discriminator": discriminator.detach(),
                "generator": generator.detach(),
                "matched": matched.detach(),
            },
        )


def _realness(logits: Tensor, made_up: Tensor) -> Tensor:
    """The log-odds (N,) of one of the classes with logits (N, k) against `made up`, whose logit is (N, 1)."""
    return logits.logsumexp(dim=1) - made_up[:, 0]


def _frozen(module: nn.Module, values: Tensor) -> Tensor:
    """The module's output; no gradient reaches its parameters."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    found: Tensor = torch.func.functional_call(module, weights, values)
    return found


def row_noise(batch: Batch, width: int, progress: float) -> Tensor:
    """Uniforms in [-1, 1), (N, width): a row's depend on its tokens and `progress` only, not on padding or workers."""
    real = batch.inputs["input_ids"] * batch.inputs["attention_mask"]
    tokens = real.cpu().numpy().astype(np.uint64)
    with np.errstate(over="ignore"):
        content = (tokens * np.cumprod(np.full(tokens.shape[1], _ODD))).sum(axis=1, dtype=np.uint64)
    rows = seeding.keys("noise", int(np.float64(progress).view(np.int64)), content)
    draws = seeding.uniforms(np.repeat(rows, width), np.tile(np.arange(width), len(rows)))
    return torch.from_numpy(2 * draws.reshape(len(rows), width) - 1)
