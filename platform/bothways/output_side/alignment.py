"""What brings the features of two domains closer: shared by the objectives that align them.

The labelled rows are the source domain, the data's unlabelled text is the target: `data.unlabelled_source`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Beside, Forward, Loss, TaskLike
from bothways.errors import UserError
from bothways.lazy import functional, torch
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the kernels of `mmd`, as multiples of the mean squared distance."""
HIDDEN = 100
"""Units between features and the domain in `discriminator`."""


class Alignment(Objective):
    """L = CE(source rows) + what `align` gives for the features of both domains; all rows are one call of the model."""

    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0), Range(0.1, 10.0, log=True)] = 1.0
    per_row: Annotated[int, Field(ge=1, le=16), Range(1, 4)] = 1

    @property
    def passes(self) -> tuple[int, int]:
        return (1 + self.per_row, 1 + self.per_row) if self.strength else PLAIN

    @property
    def beside(self) -> Beside | None:
        return Beside(source="unlabelled", per_row=self.per_row) if self.strength else None

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.beside is None:
            return plain(forward, batch, task)
        (target,) = batch.beside[self.beside]
        both = batch.join(target)
        found = forward.outputs(both, self.embeddings(forward, both, len(batch)))
        hard = task.row_losses(found.logits[: len(batch)], batch).mean()
        of_source, of_target = found.features.tensor_split([len(batch)])
        term, parts = self.align(forward, of_source, of_target, batch.progress)
        return Loss(total=hard + term, parts={"supervised": hard.detach(), **parts})

    def embeddings(self, forward: Forward, both: Batch, sources: int) -> Tensor | None:
        """What the model reads of `both`, whose first `sources` rows are of the source; None: their tokens."""
        return None

    @abstractmethod
    def align(
        self, forward: Forward, source: Tensor, target: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted term for features (N, H) and (M, H), and its parts."""


def statistic(kind: str, forward: Forward, source: Tensor, target: Tensor) -> Tensor:
    """`coral` or `mmd` of the features of all workers. Raises `UserError` for fewer than two rows of a domain."""
    source, target = forward.gather(source), forward.gather(target)
    if min(len(source), len(target)) < 2:
        raise UserError(f"{kind} needs two rows of each domain at once: raise optim.batch_size or lower accumulate")
    return {"coral": coral, "mmd": mmd}[kind](source, target)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """The squared Frobenius distance of the covariances of (N, H) and (M, H), over 4 H² (Sun & Saenko 2016).

    The unit of the features is their root mean variance in both domains, which counts as given.
    """
    unit = (source.detach().var(dim=0).mean() + target.detach().var(dim=0).mean()) / 2
    squared: Tensor = ((source.T.cov() - target.T.cov()) ** 2).sum()
    return squared / (4 * (source.shape[1] * unit).clamp_min(1e-12) ** 2)


def mmd(source: Tensor, target: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of (N, H) and (M, H), unbiased (Gretton et al. 2012, equation 3).

    The kernel is the mean of Gaussians exp(-d² / b) (Long et al. 2015), b around the mean d² of all pairs of rows.
    """
    rows = torch.cat([source, target])
    rows = rows - rows.detach().mean(dim=0)  # changes no distance, but what rounding does to it
    squares = (rows * rows).sum(dim=1)
    apart = (squares[:, None] + squares[None, :] - 2 * rows @ rows.T).clamp_min(0)
    others = 1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    middle = (apart.detach() * others).sum() / others.sum()
    kernel = torch.stack([(-apart / (middle * b).clamp_min(1e-12)).exp() for b in BANDWIDTHS]).mean(dim=0) * others
    n, m = len(source), len(target)
    within = kernel[:n, :n].sum() / (n * (n - 1)) + kernel[n:, n:].sum() / (m * (m - 1))
    found: Tensor = within - 2 * kernel[:n, n:].mean()
    return found


def discriminator(width: int) -> nn.Module:
    """Says of features (N, width) how sure they are of the target, as a logit (N, 1)."""
    nn = torch.nn
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))


def confusion(judge: nn.Module, source: Tensor, target: Tensor, strength: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The judge's cross-entropy, both domains counting half; its gradient reaches the features times -`strength`."""

    def judged(features: Tensor) -> Tensor:
        fixed = features.detach()
        found: Tensor = judge(fixed - strength * (features - fixed))[:, 0]
        return found

    of_source, of_target = judged(source), judged(target)
    loss = (functional.softplus(of_source).mean() + functional.softplus(-of_target).mean()) / 2
    right = ((of_source < 0).float().mean() + (of_target > 0).float().mean()) / 2
    return loss, {"domain": loss.detach(), "told_apart": right}


def rising(progress: float) -> float:
    """From 0 to 1 in the course of the training, as in Ganin et al. 2016, section 5.2.2."""
    return math.tanh(5 * progress)  # 2 / (1 + exp(-10 p)) - 1
