"""What comes out of a run: frozen records, plain data, no behaviour beyond reading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["finished", "stopped", "interrupted", "failed"]
"""`stopped`: by the scheduler, it was not worth going on. `interrupted`: by the user, it can go on."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One look at a trial in training, after `step` of `steps` optimiser steps.

    `metrics` are named like `selection/accuracy` and `train/loss`; all are finite floats. `seconds`: since the trial
    began.
    """

    step: int
    steps: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trained experiment. `model_dir` holds its model (empty when it failed); `error` is one line."""

    trial_id: str
    experiment: Mapping[str, Any]
    status: Status
    reports: tuple[Report, ...] = ()
    test: Mapping[str, float] = field(default_factory=dict)
    model_dir: str = ""
    error: str = ""

    @property
    def last(self) -> Mapping[str, float]:
        """The metrics of the last report, empty when there was none."""
        return self.reports[-1].metrics if self.reports else {}
