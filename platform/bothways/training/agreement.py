"""Whether rows pull a model the same way: inner products of the gradients of their losses, without any of them.

The gradient of some rows' mean loss is a direction in the space of the parameters. How fast another row's loss changes
in that direction is what its own gradient would have given in an inner product with it, and forward-mode
differentiation finds it for all rows at once, for about the price of a backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from bothways.contracts import Batch, Collective, TaskLike

if TYPE_CHECKING:
    from bothways.training import ModelForward


@dataclass(frozen=True)
class Slope:
    """The gradient of a loss: of `parameters`, by name, and of the whole input embedding (V, H) where that is trained
    by rows (`embedding_rows`), so that it is none of them."""

    parameters: Mapping[str, Tensor]
    embedding: Tensor | None

    def mean_over(self, workers: Collective) -> Slope:
        """The mean of all workers' slopes."""
        if workers.world == 1:
            return self
        mean = {name: workers.sum(value) / workers.world for name, value in self.parameters.items()}
        embedding = None if self.embedding is None else workers.sum(self.embedding) / workers.world
        return Slope(mean, embedding)


def slope(
    forward: ModelForward,
    batch: Batch,
    task: TaskLike,
    moving: Mapping[str, Tensor],
    *,
    by_rows: bool,
    shares: Tensor | None = None,
) -> Slope:
    """The gradient of the mean loss of the batch, of `shares` of it, (N,), if given, for the parameters `moving`, and,
    if asked for, for an embedding that is trained by rows. Without dropout."""
    looked_up = forward.embed(batch) if by_rows else None
    table: nn.Embedding = forward.module.get_input_embeddings()  # type: ignore[operator]
    if looked_up is None or table.weight.requires_grad or not looked_up.requires_grad:
        looked_up = None  # it does not move, or is one of `moving`
    else:
        looked_up = looked_up.detach().requires_grad_()
    with torch.enable_grad(), _still(forward.module):
        losses = task.row_losses(forward.inner(batch, looked_up), batch)
        loss = (losses if shares is None else losses * shares.to(losses.dtype)).mean()
        wanted = [*moving.values(), *([] if looked_up is None else [looked_up])]
        found = torch.autograd.grad(loss, wanted, materialize_grads=True)
    parameters = dict(zip(moving, found, strict=False))
    if looked_up is None:
        return Slope(parameters, None)
    ids = batch.inputs["input_ids"]
    embedding = torch.zeros_like(table.weight).index_add_(0, ids.flatten(), found[-1].flatten(0, 1))
    if table.padding_idx is not None:
        embedding[table.padding_idx] = 0
    return Slope(parameters, embedding)


@torch.no_grad()
def along(forward: ModelForward, batch: Batch, task: TaskLike, slope: Slope) -> Tensor:
    """How fast the loss of each row grows in the direction of `slope`, (N,). Without dropout."""
    module = forward.module
    with forward_ad.dual_level(), _still(module):
        values = dict(module.named_parameters())
        moved = {name: _dual(values[name].detach(), to) for name, to in slope.parameters.items()}
        embeddings = None
        if slope.embedding is not None:
            embeddings = _dual(forward.embed(batch), slope.embedding[batch.inputs["input_ids"]])

        def model(**inputs: Any) -> Any:
            return torch.func.functional_call(module, moved, (), inputs)

        found = forward_ad.unpack_dual(forward.through(model, batch, embeddings))  # type: ignore[no-untyped-call]
        logits, change = found.primal, found.tangent
    with torch.enable_grad():  # a row's loss depends on its own logits only
        logits = logits.detach().requires_grad_()
        (steepness,) = torch.autograd.grad(task.row_losses(logits, batch).sum(), logits)
    per_row: Tensor = (steepness * change).flatten(1).sum(dim=1)
    return per_row


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    """The value, moving in the direction of `tangent`."""
    moving: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return moving


@contextmanager
def _still(module: nn.Module) -> Iterator[None]:
    """Without dropout, and with an attention that can be differentiated forward."""
    training = module.training
    module.eval()
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        module.train(training)
