"""One sweep from a checked pipeline to an honest table: search, confirm with fresh seeds, register the best."""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from bothways import analysis, data, report, spaces, yaml_io
from bothways.config import Experiment, Pipeline, Search
from bothways.edges.hub import Event, Job
from bothways.edges.mlflow_tracking import MlflowTracker
from bothways.edges.ray_cluster import HubActor, leave_ray, start_ray
from bothways.edges.ray_train import Lanes
from bothways.edges.ray_tune import Mode, Past, run_search
from bothways.edges.record import Pump, Record, Sink, TrialRecord
from bothways.errors import ConflictError, UserError
from bothways.results import Arm, SweepResult

CONFIRM = "confirm"
FRESH = 1000
"""Confirmation seeds are the experiment's seed + 1000, + 1001, …: none was seen by the search."""


@contextlib.contextmanager
def lease(directory: Path) -> Iterator[None]:
    """Sole ownership of a sweep's directory while this process lives (the lock dies with it).

    Raises `ConflictError` naming the holder when another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lease").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConflictError(f"sweep {directory.name} is running already: {file.read().strip()}") from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def sweep_directory(storage: Path, name: str, *, resume: bool) -> Path:
    """`<storage>/<name>-NNN`: the last one to resume, else the next free number."""
    taken = sorted(storage.glob(f"{name}-[0-9][0-9][0-9]"))
    if resume:
        if not taken:
            raise UserError(f"there is no sweep of {name} in {storage} to resume: run it without --resume")
        return taken[-1]
    return storage / f"{name}-{int(taken[-1].name[-3:]) + 1 if taken else 1:03d}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep is to do, all of it checked before Ray starts."""

    pipeline: Pipeline
    search: Search
    space: spaces.Space
    directory: Path
    metric: str
    mode: Mode


def plan(pipeline: Pipeline, space_file: Path, *, resume: bool) -> Plan:
    """Check the space against the experiment and choose the directory. Raises `UserError`."""
    if pipeline.search is None:
        raise UserError(f"pipeline {pipeline.name} has no `search:` section: use `bothways train`, or add one")
    space = spaces.load_space(space_file)
    space.check(pipeline.experiment)
    direction = pipeline.experiment.task.directions
    if pipeline.search.metric not in direction:
        raise UserError(f"search.metric {pipeline.search.metric!r} is not one of: {', '.join(direction)}")
    return Plan(
        pipeline=pipeline,
        search=pipeline.search,
        space=space,
        directory=sweep_directory(Path(pipeline.run.storage).resolve(), pipeline.name, resume=resume),
        metric=f"selection/{pipeline.search.metric}",
        mode=direction[pipeline.search.metric],
    )


def tune(plan: Plan, view: Sink) -> SweepResult:
    """Run the sweep. `view` sees every event. Interrupted by KeyboardInterrupt, it ends cleanly and can be resumed."""
    run, directory = plan.pipeline.run, plan.directory
    with lease(directory), contextlib.ExitStack() as stack:
        record = Record.replay(directory / "events.jsonl")
        dataset = data.load(plan.pipeline.experiment.data, directory)
        tracker = stack.enter_context(MlflowTracker(plan.pipeline, directory, dataset))
        start_ray(run)
        stack.callback(leave_ray)
        hub = HubActor.remote(run.max_failures)
        stall = _Stall(hub)
        pump = Pump(hub, [record, _Forward(tracker), view], run.stall_timeout_s, stall)
        pump.start()
        stack.callback(pump.drain)
        with stall.named(), Lanes(hub, ray.put(dataset), run, directory) as lanes:
            run_search(
                plan.search,
                plan.space,
                plan.pipeline.experiment,
                hub=hub,
                directory=directory,
                lanes=len(lanes),
                metric=plan.metric,
                mode=plan.mode,
                past=_past(record, plan.metric),
            )
            best = _best(record, plan)
            control = record.trials[_first(record)]
            confirmed = _confirm(hub, plan, [control] if best is control else [control, best])
        result = _result(plan, record, best, control, confirmed, tracker.uri)
        _remember(plan, tracker, result, best)
    return replace(result, problems=tuple(tracker.problems))


# -- the parts ------------------------------------------------------------------------------------------------------


class _Forward:
    """Hub events → tracker calls."""

    def __init__(self, tracker: MlflowTracker) -> None:
        self._tracker = tracker

    def __call__(self, event: Event) -> None:
        if event.kind == "begin" and event.job:
            self._tracker.begin(event.trial_id, event.trial_id, event.job.experiment, event.job.knobs)
        elif event.kind == "report" and event.report:
            self._tracker.report(event.trial_id, event.report.step, event.report.metrics)
        elif event.kind == "end" and event.outcome:
            outcome = event.outcome
            if outcome.test:
                self._tracker.report(event.trial_id, 1 << 30, {f"test/{k}": v for k, v in outcome.test.items()})
            self._tracker.end(event.trial_id, outcome.status, outcome.model_dir, outcome.error)


class _Stall:
    """Ends a sweep that makes no progress, and says what it waited for."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._why = ""
        self._over = threading.Event()

    def __call__(self, why: str) -> None:
        self._why = why
        ray.get(self._hub.close.remote("the sweep stalled"))
        if not self._over.wait(30):  # even Tune does not answer: only an interrupt gets the main thread back
            _thread.interrupt_main()

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        try:
            yield
        except (Exception, KeyboardInterrupt):
            if self._why:
                raise UserError(self._why) from None
            raise
        finally:
            self._over.set()
        if self._why:
            raise UserError(self._why)


def _past(record: Record, metric: str) -> list[Past]:
    """The search's trials so far, in the order in which they were proposed."""
    trials = [t for name, t in sorted(record.trials.items()) if not name.startswith(CONFIRM)]
    ended = {"finished", "stopped", "failed"}
    return [
        Past(point=t.knobs, value=t.value(metric) if t.outcome and t.outcome.status in ended else None) for t in trials
    ]


def _first(record: Record) -> str:
    return min(name for name in record.trials if not name.startswith(CONFIRM))


def _best(record: Record, plan: Plan) -> TrialRecord:
    """The finished trial with the best last report. Raises `UserError` when none has finished."""
    finished = [
        t for t in record.trials.values() if t.outcome and t.outcome.status == "finished" and t.outcome.model_dir
    ]
    finished = [t for t in finished if not t.trial_id.startswith(CONFIRM)]
    if not finished:
        errors = {t.outcome.error for t in record.trials.values() if t.outcome and t.outcome.error}
        raise UserError(f"no trial has finished: {'; '.join(sorted(errors)) or 'all were stopped'}")
    sign = -1 if plan.mode == "min" else 1
    return max(finished, key=lambda t: sign * (t.value(plan.metric) or 0.0))


def _confirm(hub: Any, plan: Plan, arms: Sequence[TrialRecord]) -> dict[str, list[str]]:
    """Train each arm again with fresh seeds, all to the last step, and score the test rows. Trial ids by arm."""
    ids: dict[str, list[str]] = {}
    for k in range(plan.search.confirm_seeds):
        for name, arm in zip(("control", "found"), arms, strict=False):
            experiment = _again(Experiment(**arm.experiment), k)
            seed = experiment.seed
            job = Job(
                trial_id=f"{CONFIRM}-{name}-{seed}",
                experiment=experiment.spec(),
                directory=str(plan.directory / "trials" / f"{CONFIRM}-{name}-{seed}"),
                knobs=arm.knobs,
                lock_step=False,
                score_test=True,
            )
            ray.get(hub.submit.remote(job))
            ids.setdefault(name, []).append(job.trial_id)
    for trial_id in [one for several in ids.values() for one in several]:
        outcome = ray.get(hub.outcome.remote(trial_id))
        if outcome.status != "finished":
            raise UserError(f"{trial_id} {outcome.status}: {outcome.error or 'it did not reach its last step'}")
    return ids


def _again(experiment: Experiment, k: int) -> Experiment:
    """The experiment with its k-th fresh seed. Nothing is selected here, so it looks at the selection rows only once,
    unless it stops by them."""
    optim = experiment.optim
    if optim.patience is None:
        optim = optim.model_copy(update={"evaluate_every": optim.steps})
    return experiment.model_copy(update={"seed": experiment.seed + FRESH + k, "optim": optim})


def _result(
    plan: Plan,
    record: Record,
    best: TrialRecord,
    control: TrialRecord,
    confirmed: Mapping[str, list[str]],
    uri: str,
) -> SweepResult:
    def arm(name: str, trial: TrialRecord) -> tuple[Arm, Any]:
        outcomes = [record.trials[one].outcome for one in confirmed[name]]
        hits = np.array([o.hits for o in outcomes if o is not None])
        scores = tuple(o.test["accuracy"] for o in outcomes if o is not None)
        return Arm(name=name, trial_id=trial.trial_id, scores=scores, test=analysis.estimate(hits)), hits

    control_arm, control_hits = arm("control", control)
    arms, gain = [control_arm], None
    if "found" in confirmed:
        found_arm, found_hits = arm("found", best)
        arms.append(found_arm)
        gain = analysis.difference(found_hits, control_hits)
    searched = [t for name, t in record.trials.items() if not name.startswith(CONFIRM)]
    return SweepResult(
        sweep=plan.directory.name,
        directory=str(plan.directory),
        tracking_uri=uri,
        trials=len(searched),
        stopped=sum(t.outcome is not None and t.outcome.status == "stopped" for t in searched),
        best=best.trial_id,
        knobs=dict(best.knobs),
        arms=tuple(arms),
        gain=gain,
        steps=plan.pipeline.experiment.optim.steps,
        sentence=analysis.verdict(gain),
    )


def _remember(plan: Plan, tracker: MlflowTracker, result: SweepResult, best: TrialRecord) -> None:
    """The champion, and the sweep's files: space, pipeline, best experiment, policy, table."""
    from bothways import models  # only now: torch and transformers take seconds that the start has no need of

    assert best.outcome is not None
    exported = plan.directory / "champion"
    models.export(Path(best.outcome.model_dir), exported)
    tracker.champion(exported, plan.pipeline.name, {"trial": best.trial_id, "sweep": result.sweep})
    augment = best.experiment["input"]["augment"]
    for path, text in {
        "pipeline.yaml": yaml_io.dump(plan.pipeline.model_dump(mode="json")),
        "space.yaml": plan.space.text,
        "best.yaml": yaml_io.dump(dict(best.experiment)),
        "policy.yaml": yaml_io.dump(dict(augment)),
        "result.md": report.markdown(result),
    }.items():
        (plan.directory / path).write_text(text, encoding="utf-8")
        tracker.artifact(path, text)
    tracker.summary(
        {f"test/{a.name}": a.test.mean for a in result.arms} | {"test/gain": result.gain.mean if result.gain else 0.0}
    )
