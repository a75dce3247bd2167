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


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its confidence interval, as shares (0.8 is 80 %)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One experiment trained again with fresh seeds.

    `scores`: each metric of the test rows, one a seed. `test`: mean accuracy with its interval.
    """

    name: str
    trial_id: str
    scores: Mapping[str, tuple[float, ...]]
    test: Estimate


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep found. `arms`: control first. `gain`: found - control in accuracy; None when the control won.

    `metric`: what the search ranked by. `front`: with several objectives, the trials that none dominates, the best by
    the first one first: `trial` and every metric that was looked at. `problems`: what did not go as it should, one line
    each.
    """

    sweep: str
    directory: str
    tracking_uri: str
    trials: int
    stopped: int
    best: str
    knobs: Mapping[str, Any]
    arms: tuple[Arm, ...]
    gain: Estimate | None
    steps: int
    metric: str
    sentence: str
    front: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
