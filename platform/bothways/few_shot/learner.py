"""A transformers classifier as a function of its parameters, whose last layer begins anew with each episode."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from bothways.config.few_shot import Episodes
from bothways.errors import UserError
from bothways.joint.meta import Learner, Parameters
from bothways.output_side.trainable import Trainable
from bothways.training.arithmetic import autocast
from bothways.training.forward import input_of, last_linear

if TYPE_CHECKING:
    from bothways.contracts import Batch


class Classifier(Learner):
    """`module` for episodes of this `shape`, of which nothing but how to adapt is read. `precision`: of the forward."""

    def __init__(self, module: Any, shape: Episodes, precision: str = "fp32") -> None:
        self.module: nn.Module = module
        self._last = last_linear(module)
        self.head = tuple(name for name, value in module.named_parameters() if _is_of(self._last, value))
        self._prototypes = shape.head == "prototypes"
        self._precision = precision
        if self._prototypes and self._last.bias is None:
            raise UserError(f"head prototypes: {type(module).__name__} has no bias to set: use head zero")
        moves = plain(shape.adapt).moves(module)
        rates = {name: shape.adapt_lr * move.rate for name, move in moves.items()}
        rates |= dict.fromkeys(self.head, shape.adapt_head_lr or shape.adapt_lr)
        self._rates = [(name, rate, moves[name].since if name in moves else 0) for name, rate in rates.items()]

    def rates(self, step: int) -> Mapping[str, float]:
        return {name: rate for name, rate, since in self._rates if since <= step}

    def start(self, parameters: Parameters, support: Batch) -> Parameters:
        weight, bias = self._new_head(parameters, support)
        return {**parameters, **{name: weight if parameters[name].dim() == 2 else bias for name in self.head}}

    def _new_head(self, parameters: Parameters, support: Batch) -> tuple[Tensor, Tensor]:
        weight = self._last.weight
        if not self._prototypes:
            return torch.zeros_like(weight), weight.new_zeros(len(weight))
        with input_of(self._last) as read:
            self.logits(parameters, support)
        return prototypes(read[0].to(weight.dtype), support.labels, len(weight))

    def logits(self, parameters: Parameters, batch: Batch) -> Tensor:
        """(N, ways)."""
        with autocast(self._precision, batch.labels.device):
            found: Tensor = torch.func.functional_call(self.module, dict(parameters), (), dict(batch.inputs)).logits
        return found.to(self._last.weight.dtype)

    def loss(self, parameters: Parameters, batch: Batch, *, twice: bool = False) -> Tensor:
        # The fused kernels of attention have no second derivative.
        with sdpa_kernel(SDPBackend.MATH) if twice else nullcontext():
            return functional.cross_entropy(self.logits(parameters, batch), batch.labels)


def prototypes(features: Tensor, labels: Tensor, ways: int) -> tuple[Tensor, Tensor]:
    """Weights (ways, H) and bias (ways,) of the linear layer whose classes are those of the nearest mean: 2 c_k and
    -|c_k|^2, since -|x - c_k|^2 = 2 c_k x - |c_k|^2 - |x|^2 (Snell et al. 2017). `features` (N, H), `labels` (N,)."""
    members = functional.one_hot(labels, ways).to(features.dtype)
    means = members.T @ features / members.sum(dim=0)[:, None].clamp_min(1)
    return 2 * means, -(means**2).sum(dim=1)


def plain(trainable: Any) -> Trainable:
    """The trainable. Raises `UserError` for one that puts parameters of its own into the model."""
    if type(trainable).__call__ is not Trainable.__call__:
        raise UserError(
            f"few_shot: trainable {trainable.name} puts parts of its own into the model: use full or last_n"
        )
    assert isinstance(trainable, Trainable)
    return trainable


def _is_of(layer: nn.Module, value: Tensor) -> bool:
    return any(value is own for own in layer.parameters())
