"""The honest end of a sweep, in two rounds of fresh seeds: which finalist is the best again, and is it better at all.

The best of many trials was also the luckiest of them. So a few finalists are trained again, and ranked by the selection
rows without the score that chose them; then control and winner are trained with seeds that nobody has chosen by, and
scored on the test rows, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways import analysis
from bothways.config import Experiment
from bothways.edges import fresh
from bothways.edges.record import Record, TrialRecord
from bothways.results import Arm, Estimate


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """`arms`: control first. `gain`: found - control, paired by seed and row; None without a found arm."""

    arms: tuple[Arm, ...]
    gain: Estimate | None
    notes: tuple[str, ...]


def rerun(hub: Any, record: Record, finalists: Sequence[TrialRecord], seeds: int, directory: Path) -> list[list[str]]:
    """Train each finalist again with `seeds` fresh seeds, all to the last step. Returns the ids of its trials.

    A trial that did not get through (it diverged, say) is left out.
    """
    jobs = {
        (at, k): fresh.job(f"again-{trial.trial_id}", _of(trial), fresh.FINAL + k, directory, knobs=trial.knobs)
        for at, trial in enumerate(finalists)
        for k in range(seeds)
    }
    outcomes = fresh.outcomes(hub, record, jobs)
    found = [[outcomes[at, k] for k in range(seeds)] for at in range(len(finalists))]
    return [[o.trial_id for o in row if o.status == "finished"] for row in found]


def confirm(hub: Any, record: Record, arms: Mapping[str, TrialRecord], seeds: int, directory: Path) -> Confirmed:
    """Train each arm with `seeds` fresh seeds, all to the last step, and score the test rows.

    A seed that one of the arms did not get through (it diverged, say) is left out for all, and noted.
    Raises `UserError` when none is left.
    """
    # The found arm first: it is the dearer one as a rule, and a lane that begins it last would end alone.
    jobs = {
        (name, k): fresh.job(
            f"confirm-{name}",
            _of(arms[name]),
            fresh.CONFIRM + k,
            directory,
            knobs=arms[name].knobs,
            arm=name,
            score_test=True,
        )
        for name in reversed(list(arms))
        for k in range(seeds)
    }
    ended = fresh.paired(fresh.outcomes(hub, record, jobs))
    hits = {name: ended.hits(name) for name in arms}
    gain = analysis.difference(hits["found"], hits["control"]) if "found" in hits else None
    return Confirmed(
        arms=tuple(
            Arm(name=name, trial_id=arms[name].trial_id, scores=ended.scores(name), test=analysis.estimate(hits[name]))
            for name in arms
        ),
        gain=gain,
        notes=ended.notes,
    )


def _of(trial: TrialRecord) -> Experiment:
    return Experiment(**trial.experiment)
