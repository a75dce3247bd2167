"""An exponential moving average of weights in training (Polyak & Juditsky 1992; Tarvainen & Valpola 2017).

After optimiser step t (from 1): m <- d m + (1 - d) w, with d = min(decay, (1 + t) / (10 + t)). The second term lets the
average forget the start quickly, which matters when there are a few hundred steps in all; t = 0 is m = w.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """`values`: the averages by name, on their weights' devices. `weights`: where they start."""

    def __init__(self, decay: float, weights: Mapping[str, Tensor]) -> None:
        self._decay = decay
        self.values = {name: value.clone() for name, value in weights.items()}

    def update(self, step: int, weights: Mapping[str, Tensor], start: Tensor | None = None) -> None:
        """Take in the weights after optimiser step `step` (from 1).

        A matrix may have got more rows since the last time; `start` is what all its rows were before the training.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in weights.items():
            known = self.values[name]
            if known.shape != value.shape and start is not None:
                known = self.values[name] = torch.cat([known, start[len(known) :]])
            known.lerp_(value, 1 - decay)

    def resume(self, values: Mapping[str, Tensor]) -> None:
        """Go on from the `values` of an average like this one."""
        self.values = {name: values[name].to(known.device, copy=True) for name, known in self.values.items()}
