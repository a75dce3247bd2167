"""What one process keeps between its trials: the model with its base weights, encoded rows, statistics."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

from bothways import models, tokenization
from bothways.registry import TASKS
from bothways.task_contract import TaskLike

T = TypeVar("T")

KEPT = 32
"""Results that a process remembers: those that were used last."""


class Workspace:
    """What the trials of one process share: the model with its base weights, encoded rows, statistics.

    No trial leaves a trace in it: what one gives here after others, it gives alone in a new process, bit for bit.
    Making one sets the process up for deterministic arithmetic. `checkpoint_s`: what the last checkpoint cost here.
    `say`: hears now and then how far work is that makes no reports.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.checkpoint_s = 0.0
        self.say: Callable[[str], None] | None = None
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, or what it gave for the same `key` before. Holds `KEPT` results."""
        if key not in self._kept:
            self._kept[key] = make()
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        kept: T = self._kept[key]
        return kept

    def model(
        self,
        source: str,
        labels: tuple[str, ...],
        vocabulary: tokenization.Vocabulary | None = None,
        task: TaskLike | None = None,
    ) -> models.Bundle:
        """The model of `source` for `task` (None: classification), loaded once. Its weights are whatever the last
        trial left: see `models.reset`."""
        task = task or TASKS.build("classification")
        key = ("model", source, task.architecture(labels), vocabulary)
        return self.remember(key, lambda: models.load(source, labels, self.device, vocabulary, task))
