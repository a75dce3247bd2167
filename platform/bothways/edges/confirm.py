"""The honest end of a sweep: control and winner trained again with fresh seeds, and scored once on the test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from bothways import analysis
from bothways.config import Experiment
from bothways.edges.hub import Job, Outcome
from bothways.edges.record import CONFIRM, Record, TrialRecord
from bothways.errors import UserError
from bothways.results import Arm, Estimate

FRESH = 1000
"""Confirmation seeds are the experiment's seed + 1000, + 1001, …: none was seen by the search."""


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """`arms`: control first. `gain`: found - control, paired by seed and row; None without a found arm."""

    arms: tuple[Arm, ...]
    gain: Estimate | None
    notes: tuple[str, ...]


def confirm(hub: Any, record: Record, arms: Mapping[str, TrialRecord], seeds: int, directory: Path) -> Confirmed:
    """Train each arm with `seeds` fresh seeds, all to the last step; what an earlier process has confirmed is kept.

    A seed that one of the arms did not get through (it diverged, say) is left out for all, and noted.
    Raises `UserError` when none is left.
    """
    jobs = {(name, k): _job(name, arm, k, directory) for k in range(seeds) for name, arm in arms.items()}
    done = {key: _known(record, job) for key, job in jobs.items()}
    for key, job in jobs.items():
        if done[key] is None:
            ray.get(hub.submit.remote(job))
    outcomes: dict[tuple[str, int], Outcome] = {
        key: done[key] or ray.get(hub.outcome.remote(job.trial_id)) for key, job in jobs.items()
    }
    failed = {key: outcome for key, outcome in outcomes.items() if outcome.status != "finished"}
    kept = [k for k in range(seeds) if not any((name, k) in failed for name in arms)]
    notes = tuple(f"{o.trial_id} {o.status}: {o.error}; its seed is left out" for o in failed.values())
    if not kept:
        raise UserError(f"no seed could be confirmed: {notes[0]}")
    results = {name: [outcomes[name, k] for k in kept] for name in arms}
    hits = {name: np.array([outcome.hits for outcome in found]) for name, found in results.items()}
    gain = analysis.difference(hits["found"], hits["control"]) if "found" in hits else None
    return Confirmed(
        arms=tuple(_arm(name, arms[name].trial_id, results[name], analysis.estimate(hits[name])) for name in arms),
        gain=gain,
        notes=notes,
    )


def _job(name: str, arm: TrialRecord, k: int, directory: Path) -> Job:
    """The arm's k-th fresh seed. No early stopping: both arms take the same number of steps."""
    experiment = Experiment(**arm.experiment)
    seed = experiment.seed + FRESH + k
    optim = experiment.optim.model_copy(update={"patience": None})
    trial_id = f"{CONFIRM}-{name}-{seed}"
    return Job(
        trial_id=trial_id,
        experiment=experiment.model_copy(update={"seed": seed, "optim": optim}).spec(),
        directory=str(directory / trial_id),
        knobs=arm.knobs,
        lock_step=False,
        score_test=True,
    )


def _known(record: Record, job: Job) -> Outcome | None:
    """What the record says of this very job, if it was finished."""
    trial = record.trials.get(job.trial_id)
    same = trial is not None and dict(trial.experiment) == dict(job.experiment)
    return trial.outcome if trial and same and trial.outcome and trial.outcome.status == "finished" else None


def _arm(name: str, trial_id: str, outcomes: Sequence[Outcome], test: Estimate) -> Arm:
    names = outcomes[0].test
    return Arm(name=name, trial_id=trial_id, scores={m: tuple(o.test[m] for o in outcomes) for m in names}, test=test)
