"""What a few-shot pipeline found: accuracy over seeds and episodes, against the first arm. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bothways import analysis

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """`accuracy`: of each seed's model in each episode, (S, E); all arms have the same episodes. `train_s`: of one
    seed's meta-training, `episode_s`: of one episode that judges. `model`: its directory, of the first seed; '' for an
    arm that has learned nothing."""

    name: str
    method: Mapping[str, Any]
    accuracy: F64
    train_s: float
    episode_s: float
    model: str = ""


def table(arms: Sequence[ArmResult]) -> list[dict[str, str]]:
    """A row an arm: accuracy in per cent, and the difference to the first arm, each with its 95 % interval."""
    return [
        {
            "arm": arm.name,
            "method": " ".join(str(value) for value in arm.method.values() if value is not None),
            "accuracy, %": f"{100 * mean.mean:.1f} [{100 * mean.low:.1f}, {100 * mean.high:.1f}]",
            f"beside {arms[0].name}": _gain(arm, arms[0]),
            "meta-training, s": f"{arm.train_s:.1f}",
            "an episode, s": f"{arm.episode_s:.2f}",
        }
        for arm in arms
        for mean in [analysis.estimate(arm.accuracy)]
    ]


def _gain(arm: ArmResult, control: ArmResult) -> str:
    if arm is control:
        return ""
    gain = analysis.difference(arm.accuracy, control.accuracy)
    return f"{100 * gain.mean:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def metrics(arms: Sequence[ArmResult]) -> dict[str, float]:
    """For the record: `ARM/accuracy` with its interval."""
    found: dict[str, float] = {}
    for arm in arms:
        mean = analysis.estimate(arm.accuracy)
        found |= {
            f"{arm.name}/accuracy": mean.mean,
            f"{arm.name}/accuracy_low": mean.low,
            f"{arm.name}/accuracy_high": mean.high,
            f"{arm.name}/train_s": arm.train_s,
        }
    return found


def sentences(arms: Sequence[ArmResult]) -> list[str]:
    """One honest sentence for every arm but the first."""
    control, *others = arms
    return [
        f"{arm.name}: "
        + analysis.verdict(analysis.difference(arm.accuracy, control.accuracy), len(arm.accuracy), "accuracy")
        for arm in others
    ]


def markdown(name: str, arms: Sequence[ArmResult]) -> str:
    """The table and the sentences as a page."""
    rows = table(arms)
    seeds, episodes = arms[0].accuracy.shape
    lines = [f"| {' | '.join(cells)} |" for cells in (rows[0], *(row.values() for row in rows))]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{seeds} seed{'s' * (seeds > 1)}, each judged by the same {episodes} episodes of classes that "
            "meta-training never saw:",
            "",
            lines[0],
            "|---" * len(rows[0]) + "|",
            *lines[1:],
            "",
            *sentences(arms),
            "",
        ]
    )
