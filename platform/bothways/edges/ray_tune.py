"""Ray Tune with Optuna: proposes experiments, stops the hopeless ones. Training happens in the lanes, not here.

What Tune calls a trial only talks to the hub; it holds no model and nearly no CPU, and Tune reuses its actors freely.
"""

from __future__ import annotations

import functools
import json
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import ray
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from bothways import spaces
from bothways.config import Experiment, Search
from bothways.config.goals import Goals, worst
from bothways.edges.hub import Job
from bothways.errors import UserError, one_line
from bothways.results import Report, Status

MESSENGER_FAILURES = 8
"""How often Tune may lose its side of one trial."""
GRACE = 4
"""The first rung is at this part of a trial's steps, where the search does not say another. Earlier, while the rate
warms up and a new head finds its way, a score says next to nothing of the last one (tests/benchmarks/budget.py)."""
UNFINISHED = "unfinished"
"""The constraint that a trial breaks which was stopped or has failed, where there are several objectives."""
REPEATS = 30
"""How often a sampler that proposes what was tried is asked again before it gets its way: a space can be small."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """A trial as far as it is known. `curve`: the metric after each step it was looked at. `metrics`: what it has last
    said of each metric that the goals name.

    `status` `interrupted`: it has not ended; in a search that is taken up again it goes on, under its number.
    """

    number: int
    point: Mapping[str, Any]
    status: Status = "interrupted"
    curve: Mapping[int, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def last(self, goals: Goals) -> dict[str, float]:
        """What it has last said; of a trial that has been looked at."""
        return {**self.metrics, goals.metric: self.curve[max(self.curve)]}


def trial_id(number: int, point: Mapping[str, Any]) -> str:
    """`007-rdrop-random_swap`: unique in its sweep, the same when the sweep is resumed."""
    return f"{number:03d}-{spaces.arm_name(point)}"


class PointSearch(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch over a conditional space: numbers its points, begins with the given ones, replays a past.

    A point that was tried is not tried again: an experiment has one result, so the sampler is told it at once. Of a
    stopped trial the sampler learns that it was stopped, where, and with what score: told as a result, the score of a
    few steps would compete with those of all steps, and a log-loss, which rises once a model begins to overfit, would
    win. With several objectives Optuna knows no stopped trials: there they break a constraint, the less the later.
    """

    def __init__(
        self,
        space: spaces.Space,
        *,
        first: Iterable[Mapping[str, Any]],
        past: Iterable[Past],
        goals: Goals,
        **named: Any,
    ) -> None:
        objectives = {
            "metric": [goals.metric, *goals.also] if goals.also else goals.metric,
            "mode": goals.modes if goals.also else goals.mode,
        }
        super().__init__(space=functools.partial(spaces.suggest, space=space), **objectives, **named)
        self._goals = goals
        past = list(past)
        self._tried = {_key(trial.point): trial for trial in past}
        self._taken = {trial.number for trial in past}
        self._next = 0
        self._points: dict[str, str] = {}
        for trial in past:
            if trial.status != "interrupted":
                self._ot_study.enqueue_trial(dict(trial.point))
                asked = self._ot_study.ask()
                self._space(asked)
                self._tell(asked, trial)
        open_ = {_key(trial.point): trial for trial in past if trial.status == "interrupted"}
        self._open = set(open_)
        begun = [trial.point.items() for trial in past]
        fresh = [point for point in first if not any(point.items() <= known for known in begun)]
        for point in [*(trial.point for trial in open_.values()), *fresh]:
            self._ot_study.enqueue_trial(dict(point))

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """`number` and `point` (dotted path → value) of the next trial."""
        point = super().suggest(trial_id)
        for _ in range(REPEATS):
            tried = self._tried.get(_key(point))
            if tried is None or _key(point) in self._open:
                break
            self._tell(self._ot_trials.pop(trial_id), tried)
            point = super().suggest(trial_id)
        key = self._points[trial_id] = _key(point)
        if key in self._open:
            self._open.remove(key)
        else:  # also where the space holds nothing new: the point is tried once more, as a trial of its own
            while self._next in self._taken:  # with gaps: a trial that an interruption kept from its begin left one
                self._next += 1
            self._tried[key] = Past(number=self._next, point=point)
            self._next += 1
        return {"number": self._tried[key].number, "point": point}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        key, goals = self._points[trial_id], self._goals
        curve = {**self._tried[key].curve, result["step"]: result[goals.metric]}
        told = {name: result[name] for name in goals.names if name in result}
        self._tried[key] = replace(self._tried[key], curve=curve, metrics={**self._tried[key].metrics, **told})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """`result`: the last one; where the trial has not `ended` by itself, it was stopped there."""
        if result:  # of the one at which a trial is stopped Tune says nothing before
            self.on_trial_result(trial_id, result)
        key = self._points[trial_id]
        status: Status = "failed" if error or not result else result.get("ended", "stopped")
        self._tried[key] = replace(self._tried[key], status=status)
        self._tell(self._ot_trials[trial_id], self._tried[key])

    def _tell(self, asked: optuna.Trial, trial: Past) -> None:
        """What is known of `trial`, as the result of `asked`."""
        goals = self._goals
        if trial.status in ("finished", "stopped"):
            for name, excess in goals.excesses(trial.metrics).items():
                asked.set_constraint(name, excess)
        match trial.status:
            case "finished":
                self._ot_study.tell(asked, goals.values(trial.last(goals)))
            case "failed":
                if goals.also:
                    asked.set_constraint(UNFINISHED, 1.0)
                self._ot_study.tell(asked, goals.values({}))
            case "stopped" if goals.also:
                asked.set_constraint(UNFINISHED, 1.0 / (1.0 + max(trial.curve)))
                self._ot_study.tell(asked, goals.values(trial.last(goals)))
            case "stopped":
                for step, value in trial.curve.items():
                    asked.report(value, step)
                self._ot_study.tell(asked, state=TrialState.PRUNED)
            case "interrupted":  # it is still running
                self._ot_study.tell(asked, state=TrialState.FAIL)


def _key(point: Mapping[str, Any]) -> str:
    return json.dumps(point, sort_keys=True)


class OneAhead(ConcurrencyLimiter):  # type: ignore[misc]
    """Lets one more trial run than there are lanes: it waits in the hub, so that no lane waits for a proposal.

    Not more: what is proposed later knows more results. The lanes are counted anew at every proposal, so a search
    follows a cluster that grows or shrinks.
    """

    def __init__(self, searcher: PointSearch, lanes: Sized) -> None:
        super().__init__(searcher, max_concurrent=len(lanes) + 1)
        self._lanes = lanes

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial's, or None while enough are under way."""
        self.max_concurrent = len(self._lanes) + 1
        suggested: dict[str, Any] | None = super().suggest(trial_id)
        return suggested

    def get_state(self) -> dict[str, Any]:
        """Nothing: Tune would keep it, but what a sweep goes on from is its own record."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LaneTrial(tune.Trainable):  # type: ignore[misc]
    """What Tune sees of a trial: it submits an experiment to the hub, then passes one report on per step.

    `base`: every trial's job, but for what a point makes of its experiment; its directory holds theirs.
    """

    def setup(self, config: dict[str, Any], *, hub: Any, base: Job, goals: Goals) -> None:
        self._hub = hub
        self._base = base
        self._goals = goals
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._id = trial_id(config["number"], config["point"])
        self._last: dict[str, Any] = {}
        job = replace(
            self._base,
            trial_id=self._id,
            experiment=spaces.apply(Experiment(**self._base.experiment), config["point"]).spec(),
            directory=str(Path(self._base.directory) / self._id),
            knobs=config["point"],
        )
        ray.get(self._hub.submit.remote(job))

    def step(self) -> dict[str, Any]:
        answer = ray.get(self._hub.next_report.remote(self._id))
        if isinstance(answer, Report):
            told = {name: answer.metrics[name] for name in self._goals.names if name in answer.metrics}
            self._last = {**self._last, **told, "step": answer.step}
            return self._last
        if answer.status == "failed" or not self._last:
            return {"step": 0, self._goals.metric: worst(self._goals.mode), "ended": "failed", "done": True}
        return {**self._last, "ended": answer.status, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial's state lives with its lane, in the trial's own directory."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as above."""


class SparingASHA(ASHAScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2020) that never stops the control arm: all others are measured against it.

    A trial whose copies break a constraint is stopped at once, and is on no rung: training cannot mend what copies are.
    `steps`: of a whole trial, which is not stopped there: it has ended. `past`: the ended trials of an earlier process
    fill the rungs, so that a search that is taken up again stops as it did before.
    """

    def __init__(self, *, steps: int, goals: Goals, past: Iterable[Past] = (), **named: Any) -> None:
        super().__init__(time_attr="step", max_t=steps + 1, metric=goals.metric, mode=goals.mode, **named)
        self._steps = steps
        self._goals = goals
        for trial in past:
            if trial.status in ("finished", "stopped") and (trial.number == 0 or not goals.hopeless(trial.metrics)):
                known = SimpleNamespace(trial_id=f"past {trial.number}")
                self.on_trial_add(None, known)
                for step, value in trial.curve.items():
                    super().on_trial_result(None, known, {"step": step, self.metric: value})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        control = trial.config["number"] == 0
        if not control and self._goals.hopeless(result):
            return str(self.STOP) if result["step"] < self._steps else str(self.CONTINUE)
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return self.CONTINUE if control or result["step"] >= self._steps else decision


class _StopTheLane(tune.Callback):  # type: ignore[misc]
    """Tells the hub when Tune is through with a trial: a reused Trainable never hears of a scheduler's stop."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._hub.stop.remote(trial_id(trial.config["number"], trial.config["point"]))

    on_trial_error = on_trial_complete


def run_search(
    search: Search,
    space: spaces.Space,
    base: Experiment,
    *,
    hub: Any,
    directory: Path,
    lanes: Sized,
    goals: Goals,
    past: Iterable[Past] = (),
    controls: Sequence[str] = (),
) -> None:
    """Propose, train and prune until `search.trials` trials have ended. What happened is in the hub's events.

    Rungs are optimiser steps. `lanes`: as many as run trials; their number may change meanwhile. `controls`: where rung
    0's models are, when they are to look at copies.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    past = list(past)
    remaining = search.trials - sum(trial.status != "interrupted" for trial in past)
    if remaining <= 0:
        return
    searcher = PointSearch(space, first=space.first_points(base), past=past, goals=goals, sampler=sampler(search))
    job = Job(
        trial_id="",
        experiment=base.spec(),
        directory=str(directory / "trials"),
        folds=search.folds or 0,
        repeats=search.repeats,
        copies=goals.texts,
        controls=controls,
        perplexity=search.perplexity or "",
    )
    grid = tune.Tuner(
        tune.with_resources(tune.with_parameters(LaneTrial, hub=hub, base=job, goals=goals), {"cpu": 0.01}),
        tune_config=tune.TuneConfig(
            search_alg=OneAhead(searcher, lanes),
            scheduler=scheduler(search, base.optim.steps, goals, past),
            num_samples=remaining,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(directory),
            verbose=0,
            callbacks=[_StopTheLane(hub)],
            # A lost node takes messengers with it; what they spoke for goes on, and a new one asks for the rest.
            failure_config=tune.FailureConfig(max_failures=MESSENGER_FAILURES),
        ),
    ).fit()
    if grid.errors:
        raise UserError(f"the search could not run its trials: {one_line(grid.errors[0])}")


def scheduler(search: Search, steps: int, goals: Goals, past: Iterable[Past] = ()) -> SparingASHA:
    """ASHA for trials of `steps` optimiser steps, or of as many on every fold."""
    steps *= (search.folds or 1) * search.repeats
    return SparingASHA(
        steps=steps,
        goals=goals,
        past=past,
        grace_period=min(search.grace_steps or max(1, steps // GRACE), steps),
        reduction_factor=search.reduction_factor,
    )


def sampler(search: Search) -> optuna.samplers.BaseSampler:
    """TPE (Bergstra 2011) that models conditional knobs together and spreads trials that run at the same time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=search.seed,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=max(4, search.trials // 4),
        )
