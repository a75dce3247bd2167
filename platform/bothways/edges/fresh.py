"""Experiments trained with seeds that nobody has chosen by, on warm lanes: what confirmation and comparison share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import ray

from bothways.analysis import Hits
from bothways.config import Experiment
from bothways.edges.hub import Job, Outcome
from bothways.edges.record import Record
from bothways.errors import UserError

FINAL, CONFIRM, COMPARE = 500, 1000, 2000
"""What is added to the experiment's seed for the first fresh seed of each round: none was seen by the search."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Paired(Generic[K]):
    """How the arms ended with each seed that all of them got through. `seeds`: their numbers, from 0."""

    seeds: tuple[int, ...]
    outcomes: Mapping[K, Sequence[Outcome]]
    notes: tuple[str, ...]

    def hits(self, arm: K) -> Hits:
        """How right each test row was with each seed, (S, N)."""
        return np.array([outcome.hits for outcome in self.outcomes[arm]])

    def scores(self, arm: K) -> dict[str, tuple[float, ...]]:
        """Each metric of the test rows, one a seed."""
        found = self.outcomes[arm]
        return {metric: tuple(outcome.test[metric] for outcome in found) for metric in found[0].test}


def job(name: str, experiment: Experiment, fresh: int, directory: Path, **more: Any) -> Job:
    """The experiment with another seed. No early stopping: all take the same number of steps. `more`: of the job."""
    seed = experiment.seed + fresh
    optim = experiment.optim.model_copy(update={"patience": None})
    trial_id = f"{name}-{seed}"
    return replace(
        Job(trial_id=trial_id, experiment={}, directory=str(directory / trial_id), lock_step=False),
        experiment=experiment.model_copy(update={"seed": seed, "optim": optim}).spec(),
        **more,
    )


def outcomes(hub: Any, record: Record, jobs: Mapping[K, Job]) -> dict[K, Outcome]:
    """How each job ended, run at once on all lanes; what an earlier process has finished is kept."""
    done = {key: _known(record, each) for key, each in jobs.items()}
    for key, each in jobs.items():
        if done[key] is None:
            ray.get(hub.submit.remote(each))
    return {key: done[key] or ray.get(hub.outcome.remote(each.trial_id)) for key, each in jobs.items()}


def paired(ended: Mapping[tuple[K, int], Outcome]) -> Paired[K]:
    """`ended`: by arm and number of the seed. A seed that one of the arms did not get through (it diverged, say) is
    left out for all, and noted. Raises `UserError` when none is left.
    """
    arms, seeds = dict.fromkeys(arm for arm, _ in ended), sorted({seed for _, seed in ended})
    failed = {key: outcome for key, outcome in ended.items() if outcome.status != "finished"}
    kept = tuple(seed for seed in seeds if not any((arm, seed) in failed for arm in arms))
    notes = tuple(f"{o.trial_id} {o.status}: {o.error}; its seed is left out" for o in failed.values())
    if not kept:
        raise UserError(f"there is no seed that all arms got through: {notes[0]}")
    return Paired(seeds=kept, outcomes={arm: [ended[arm, k] for k in kept] for arm in arms}, notes=notes)


def _known(record: Record, job: Job) -> Outcome | None:
    """What the record says of this very job, if it was finished."""
    trial = record.trials.get(job.trial_id)
    same = trial is not None and dict(trial.experiment) == dict(job.experiment)
    return trial.outcome if trial and same and trial.outcome and trial.outcome.status == "finished" else None
