"""Perturbations of the input embeddings (N, T, H), zero on padding: sizes, starts, gradients. Norms are per row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from bothways.contracts import Batch
from bothways.lazy import functional, torch

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-12
"""What a norm is taken for when it is zero."""


def real_tokens(batch: Batch, embeddings: Tensor) -> Tensor:
    """1 for tokens and 0 for padding, (N, T, 1)."""
    return batch.inputs["attention_mask"][..., None].to(embeddings.dtype)


def norm(values: Tensor) -> Tensor:
    """L2 norm of every row of (N, T, H), as (N, 1, 1)."""
    found: Tensor = torch.linalg.vector_norm(values, dim=(1, 2), keepdim=True)
    return found


def pulled_back(values: Tensor, norms: Tensor, most: float) -> Tensor:
    """`values` shortened to norm `most` where theirs is larger; as they are when `most` is 0."""
    return values * (most / norms.clamp_min(TINY)).clamp_max(1) if most else values


def in_cube(embeddings: Tensor, real: Tensor, size: float) -> Tensor:
    """Uniform in a cube of half side size / sqrt(T_i H), whose corners have norm `size`."""
    if not size:
        return torch.zeros_like(embeddings)
    side = size / (real.sum(dim=1, keepdim=True) * embeddings.shape[-1]).sqrt()
    return torch.empty_like(embeddings).uniform_(-1, 1) * side * real


def gradient(row_losses: Callable[[Tensor], Tensor], at: Tensor, real: Tensor) -> Tensor:
    """Of the sum of `row_losses`, with respect to the perturbation `at`."""
    at = at.detach().requires_grad_()
    (found,) = torch.autograd.grad(row_losses(at).sum(), at)
    return found * real


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of every row of two tables of log probabilities (N, C): (N,)."""
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def same_dropout(device: torch.device) -> AbstractContextManager[None]:
    """What is drawn inside is drawn again by what comes after: dropout masks above all, given as many rows."""
    indices = [] if device.type == "cpu" else [device]
    manager: AbstractContextManager[None] = torch.random.fork_rng(indices, device_type=device.type)
    return manager


Gradients = Sequence["Tensor | None"]
"""Of parameters, in their order; None where a parameter had no part."""


def added(old: Gradients, new: Gradients) -> tuple[Tensor | None, ...]:
    """The sum of two gradients of the same parameters; takes the memory of `old`."""
    return tuple(b if a is None else a if b is None else a.add_(b) for a, b in zip(old, new, strict=True))


def carrying(loss: Tensor, parameters: Sequence[Tensor], gradients: Gradients) -> Tensor:
    """`loss`, to the last bit, whose backward pass adds `gradients` to those of `parameters`, scaled as its own are.

    So passes that were made before can count in the one backward pass that synchronises the workers.
    """
    parts = [(value * known).sum() for value, known in zip(parameters, gradients, strict=True) if known is not None]
    linear = torch.stack(parts).sum() if parts else torch.zeros_like(loss)
    return loss + (linear - linear.detach())
