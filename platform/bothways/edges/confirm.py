"""The honest end of a sweep, in two rounds of fresh seeds: which finalist is the best again, and is it better at all.

The best of many trials was also the luckiest of them. So a few finalists are trained again, and ranked by the selection
rows without the score that chose them; then control and winner are trained with seeds that nobody has chosen by, and
scored on the test rows, once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray

from bothways import analysis
from bothways.config import Experiment
from bothways.edges.hub import Job, Outcome
from bothways.edges.record import Record, TrialRecord
from bothways.errors import UserError
from bothways.results import Arm, Estimate

FINAL, CONFIRM = 500, 1000
"""What is added to the experiment's seed for the first fresh seed of either round: none was seen by the search."""

K = TypeVar("K", bound=Hashable)


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
        (at, k): _job(f"again-{trial.trial_id}", trial, FINAL + k, directory, score_test=False)
        for at, trial in enumerate(finalists)
        for k in range(seeds)
    }
    outcomes = _outcomes(hub, record, jobs)
    found = [[outcomes[at, k] for k in range(seeds)] for at in range(len(finalists))]
    return [[o.trial_id for o in row if o.status == "finished"] for row in found]


def confirm(hub: Any, record: Record, arms: Mapping[str, TrialRecord], seeds: int, directory: Path) -> Confirmed:
    """Train each arm with `seeds` fresh seeds, all to the last step, and score the test rows.

    A seed that one of the arms did not get through (it diverged, say) is left out for all, and noted.
    Raises `UserError` when none is left.
    """
    # The found arm first: it is the dearer one as a rule, and a lane that begins it last would end alone.
    jobs = {
        (name, k): _job(f"confirm-{name}", arms[name], CONFIRM + k, directory, score_test=True)
        for name in reversed(list(arms))
        for k in range(seeds)
    }
    outcomes = _outcomes(hub, record, jobs)
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


def _outcomes(hub: Any, record: Record, jobs: Mapping[K, Job]) -> dict[K, Outcome]:
    """How each job ended, run at once on all lanes; what an earlier process has finished is kept."""
    done = {key: _known(record, job) for key, job in jobs.items()}
    for key, job in jobs.items():
        if done[key] is None:
            ray.get(hub.submit.remote(job))
    return {key: done[key] or ray.get(hub.outcome.remote(job.trial_id)) for key, job in jobs.items()}


def _job(name: str, trial: TrialRecord, fresh: int, directory: Path, *, score_test: bool) -> Job:
    """The trial's experiment with another seed. No early stopping: all take the same number of steps."""
    experiment = Experiment(**trial.experiment)
    seed = experiment.seed + fresh
    optim = experiment.optim.model_copy(update={"patience": None})
    trial_id = f"{name}-{seed}"
    return Job(
        trial_id=trial_id,
        experiment=experiment.model_copy(update={"seed": seed, "optim": optim}).spec(),
        directory=str(directory / trial_id),
        knobs=trial.knobs,
        lock_step=False,
        score_test=score_test,
    )


def _known(record: Record, job: Job) -> Outcome | None:
    """What the record says of this very job, if it was finished."""
    trial = record.trials.get(job.trial_id)
    same = trial is not None and dict(trial.experiment) == dict(job.experiment)
    return trial.outcome if trial and same and trial.outcome and trial.outcome.status == "finished" else None


def _arm(name: str, trial_id: str, outcomes: Sequence[Outcome], test: Estimate) -> Arm:
    names = outcomes[0].test
    return Arm(name=name, trial_id=trial_id, scores={m: tuple(o.test[m] for o in outcomes) for m in names}, test=test)
