"""One sweep from a checked pipeline to an honest table: search, confirm with fresh seeds, register the best."""

from __future__ import annotations

import _thread
import contextlib
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from bothways import analysis, data, policy_file, report, spaces, yaml_io
from bothways.config import Pipeline, Search
from bothways.edges import screen
from bothways.edges.confirm import Confirmed, confirm, rerun
from bothways.edges.lease import lease, sweep_directory
from bothways.edges.mlflow_tracking import MlflowTracker
from bothways.edges.ray_cluster import leave_ray, start_hub, start_ray
from bothways.edges.ray_train import Lanes
from bothways.edges.ray_tune import Mode, Past, run_search
from bothways.edges.record import Pump, Record, Sink, TrialRecord, read
from bothways.errors import UserError
from bothways.results import SweepResult


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep is to do, all of it checked before Ray starts."""

    pipeline: Pipeline
    search: Search
    space: spaces.Space
    directory: Path
    metric: str
    mode: Mode


def plan(pipeline: Pipeline, space_file: Path | None, *, resume: bool) -> Plan:
    """Check the space against the experiment and choose the directory. Raises `UserError`."""
    if pipeline.search is None or space_file is None:
        raise UserError(f"pipeline {pipeline.name} has no `search:` section: use `bothways train`, or add one")
    space = spaces.load_space(space_file)
    space.check(pipeline.experiment)
    space.check_comparable()
    screen.check(pipeline.search, space)
    return Plan(
        pipeline=pipeline,
        search=pipeline.search,
        space=space,
        directory=sweep_directory(Path(pipeline.run.storage).resolve(), pipeline.name, resume=resume),
        metric=f"selection/{pipeline.search.metric}",
        mode=pipeline.experiment.task.directions[pipeline.search.metric],
    )


def tune(plan: Plan, view: Sink) -> SweepResult:
    """Run the sweep. `view` sees every event. Interrupted by KeyboardInterrupt, it ends cleanly and can be resumed."""
    run, directory = plan.pipeline.run, plan.directory
    with lease(directory), contextlib.ExitStack() as stack:
        record = Record.replay(journal := directory / "events.jsonl")
        dataset = data.load(plan.pipeline.experiment.data, directory, plan.pipeline.experiment.task)
        identity = _same_sweep(plan, dataset)
        tracker = stack.enter_context(MlflowTracker(plan.pipeline, directory, dataset, identity))
        tracker.replay(read(journal))
        start_ray(run)
        stack.callback(leave_ray)
        space = _screened(plan, dataset, tracker)
        # Tune starts several trials at once: whichever reaches the hub first, the control begins first.
        hub = start_hub(run.max_failures, "" if record.trials else "000-")
        stall = _Stall(hub)
        pump = Pump(hub, [record, tracker, view], run.stall_timeout_s, stall)
        pump.start()
        stack.callback(pump.drain)
        with stall.named(), Lanes(hub, ray.put(dataset), run, directory) as lanes:
            run_search(
                plan.search,
                space,
                plan.pipeline.experiment,
                hub=hub,
                directory=directory,
                lanes=lanes,
                metric=plan.metric,
                mode=plan.mode,
                past=_past(record, plan),
            )
            pump.catch_up()
            best, *others = finalists = _finalists(record, plan)
            if others:
                again = rerun(hub, record, finalists, plan.search.finalist_seeds, directory / "trials")
                pump.catch_up()
                best = _winner(record, plan, finalists, again)
            control = record.searched[0]
            arms = {"control": control} | ({} if best is control else {"found": best})
            confirmed = confirm(hub, record, arms, plan.search.confirm_seeds, directory / "trials")
        result = _result(plan, record, best, confirmed, tracker.uri)
        _remember(plan, tracker, result, best)
    return replace(result, problems=(*confirmed.notes, *tracker.problems))


# -- the parts ------------------------------------------------------------------------------------------------------


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


def _same_sweep(plan: Plan, dataset: data.Dataset) -> str:
    """The sweep's own random identity; kept in its directory beside all that must not change when it is resumed."""
    file = plan.directory / "sweep.json"
    now = {
        "experiment": plan.pipeline.experiment.digest,
        "data": dataset.digest,
        "space": hashlib.sha256(plan.space.text.encode()).hexdigest(),
        "search": plan.search.model_dump(exclude={"trials", "finalists", "finalist_seeds", "confirm_seeds"}),
    }
    if not file.exists():
        file.write_text(json.dumps({"id": uuid.uuid4().hex, **now}, indent=1), encoding="utf-8")
        for name, text in _inputs(plan).items():
            (plan.directory / name).write_text(text, encoding="utf-8")
    then = json.loads(file.read_text(encoding="utf-8"))
    if changed := [key for key, value in now.items() if then[key] != value]:
        raise UserError(f"{plan.directory.name} was begun with another {' and '.join(changed)}: run without --resume")
    return str(then["id"])


def _inputs(plan: Plan) -> dict[str, str]:
    return {"pipeline.yaml": yaml_io.dump(plan.pipeline.model_dump(mode="json")), "space.yaml": plan.space.text}


def _screened(plan: Plan, dataset: data.Dataset, tracker: MlflowTracker) -> spaces.Space:
    """The space; where rung 0 was asked for, what that found best comes after the start points of its file."""
    if not plan.search.screen:
        return plan.space
    found = screen.screen(
        plan.search,
        plan.space,
        plan.pipeline.experiment,
        dataset=dataset,
        directory=plan.directory,
        run=plan.pipeline.run,
    )
    tracker.artifact("screen.tsv", found.table)
    tracker.summary({"cost/screen_steps": float(found.steps)})
    return replace(plan.space, start=(*plan.space.start, *found.points))


def _past(record: Record, plan: Plan) -> list[Past]:
    """The search's trials so far. One that failed stays failed: the same experiment would fail again."""
    return [
        Past(
            number=trial.number,
            point=trial.knobs,
            status=trial.outcome.status if trial.outcome else "interrupted",
            curve={report.step: report.metrics[plan.metric] for report in trial.reports},
        )
        for trial in record.searched
    ]


def _finalists(record: Record, plan: Plan) -> list[TrialRecord]:
    """The finished trials with the best last reports, the best one first, and the control: it may win as well.

    Raises `UserError` when no trial has finished.
    """
    finished = [t for t in record.searched if t.outcome and t.outcome.status == "finished" and t.outcome.model_dir]
    if not finished:
        errors = {t.outcome.error for t in record.searched if t.outcome and t.outcome.error}
        raise UserError(f"no trial has finished: {'; '.join(sorted(errors)) or 'all were stopped'}")
    ranked = sorted(finished, key=lambda t: t.value(plan.metric) or 0.0, reverse=plan.mode == "max")
    if not plan.search.finalist_seeds:
        return ranked[:1]
    best, control = ranked[: plan.search.finalists], record.searched[0]
    return best if control in best else [*best, control]


def _winner(record: Record, plan: Plan, finalists: list[TrialRecord], again: list[list[str]]) -> TrialRecord:
    """The finalist whose fresh trials, `again` by id, have the best mean; the first one where none got through."""
    sign = -1 if plan.mode == "min" else 1

    def mean(names: list[str]) -> float:
        values = [record.trials[name].value(plan.metric) or 0.0 for name in names]
        return sign * sum(values) / len(values) if values else float("-inf")

    means = [mean(names) for names in again]
    return finalists[means.index(max(means))]


def _result(plan: Plan, record: Record, best: TrialRecord, confirmed: Confirmed, uri: str) -> SweepResult:
    task = plan.pipeline.experiment.task
    return SweepResult(
        sweep=plan.directory.name,
        directory=str(plan.directory),
        tracking_uri=uri,
        trials=len(record.searched),
        stopped=sum(t.outcome is not None and t.outcome.status == "stopped" for t in record.searched),
        best=best.trial_id,
        knobs=dict(best.knobs),
        arms=confirmed.arms,
        gain=confirmed.gain,
        steps=plan.pipeline.experiment.optim.steps,
        metric=plan.search.metric,
        sentence=analysis.verdict(confirmed.gain, len(next(iter(confirmed.arms[0].scores.values()))), task.score),
        score=task.score,
    )


def _remember(plan: Plan, tracker: MlflowTracker, result: SweepResult, best: TrialRecord) -> None:
    """The champion, and the sweep's files: space, pipeline, best experiment, policy, table."""
    from bothways import models  # only now: torch and transformers take seconds that the start has no need of

    assert best.outcome is not None
    exported = plan.directory / "champion"
    models.export(Path(best.outcome.model_dir), exported)
    tracker.champion(exported, plan.pipeline.name, {"trial": best.trial_id, "sweep": result.sweep})
    origin = f"Found by sweep {result.sweep}, trial {best.trial_id}. {result.sentence}"
    for path, text in {
        **_inputs(plan),
        "best.yaml": yaml_io.dump(dict(best.experiment)),
        "policy.yaml": policy_file.text(best.experiment, origin),
        "result.md": report.markdown(result),
    }.items():
        (plan.directory / path).write_text(text, encoding="utf-8")
        tracker.artifact(path, text)
    tracker.summary(
        {f"test/{a.name}": a.test.mean for a in result.arms} | {"test/gain": result.gain.mean if result.gain else 0.0}
    )
