"""Full fine-tuning: every parameter moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothways.registry import TRAINABLES, Component

if TYPE_CHECKING:
    from torch import nn


@TRAINABLES.register("full")
class Full(Component):
    term = "full fine-tuning"

    def __call__(self, model: nn.Module) -> None:
        model.requires_grad_(True)
