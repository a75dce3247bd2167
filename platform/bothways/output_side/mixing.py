"""Rows mixed with each other, on their way into the model or inside it: one vector stands for two rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bothways.errors import UserError
from bothways.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Mixture:
    """`share` (N,): of each row in its mixture; the rest is its partner's. `partners` (N,): their positions.
    `mask` (N, T): 1 for tokens, 0 for padding."""

    share: Tensor
    partners: Tensor
    mask: Tensor

    def of(self, hidden: Tensor) -> Tensor:
        """The mixtures of (N, T, H); where a row has ended it adds nothing."""
        share = self.share.to(hidden.dtype)[:, None, None]
        real = hidden * self.mask[..., None].to(hidden.dtype)
        return share * real + (1 - share) * real[self.partners]

    def joined(self, mask: Tensor) -> Tensor:
        """A mask (N, …) that lets through what it does for either of two rows, whether by 1, by true or by adding 0."""
        return torch.maximum(mask, mask[self.partners])

    @contextmanager
    def within(self, layers: nn.ModuleList, after: int) -> Iterator[None]:
        """While inside, an encoder's layers behind the first `after` read mixtures of what those give.

        Raises `UserError` when there is no layer behind them.
        """
        if after >= len(layers):
            raise UserError(
                f"mixup.layer {after}: the model has {len(layers)} layers, so {len(layers) - 1} is the last"
            )

        def read(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
            hidden, *others = given
            if layer is layers[after]:
                hidden = self.of(hidden)
            if others and isinstance(others[0], torch.Tensor):
                others[0] = self.joined(others[0])
            if isinstance(named.get("attention_mask"), torch.Tensor):
                named = {**named, "attention_mask": self.joined(named["attention_mask"])}
            return (hidden, *others), named

        with ExitStack() as hooks:
            for layer in layers[after:]:
                hook = layer.register_forward_pre_hook(read, with_kwargs=True)
                hooks.callback(hook.remove)
            yield
