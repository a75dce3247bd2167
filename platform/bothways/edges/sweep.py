"""One sweep from a checked pipeline to an honest table: search, confirm with fresh seeds, register the best."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from bothways import analysis, assets, data, report, spaces
from bothways.config import Pipeline, Search, yaml_io
from bothways.config.goals import Goals
from bothways.edges import screen
from bothways.edges.confirm import Confirmed, confirm, rerun
from bothways.edges.lease import identity, lease, sweep_directory
from bothways.edges.mlflow_tracking import MlflowTracker
from bothways.edges.ray_cluster import leave_ray, start_hub, start_ray
from bothways.edges.ray_train import Lanes
from bothways.edges.ray_tune import Past, run_search
from bothways.edges.record import Pump, Record, Sink, Stall, TrialRecord, read
from bothways.errors import UserError
from bothways.policy import file as policy_file
from bothways.results import SweepResult


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep is to do, all of it checked before Ray starts."""

    pipeline: Pipeline
    search: Search
    space: spaces.Space
    directory: Path
    goals: Goals


def plan(pipeline: Pipeline, space_file: Path | None, *, resume: bool) -> Plan:
    """Check the space against the experiment and choose the directory. Raises `UserError`."""
    if pipeline.search is None or space_file is None:
        raise UserError(f"pipeline {pipeline.name} has no `search:` section: use `bothways train`, or add one")
    space = spaces.load_space(space_file)
    space.check(pipeline.experiment)
    space.check_comparable()
    if pipeline.search.perplexity:
        assets.resolve(pipeline.search.perplexity)  # fetched now, and not by every lane
    screen.check(pipeline.search, space)
    return Plan(
        pipeline=pipeline,
        search=pipeline.search,
        space=space,
        directory=sweep_directory(Path(pipeline.run.storage).resolve(), pipeline.name, resume=resume),
        goals=pipeline.goals(),
    )


def tune(plan: Plan, view: Sink, tell: Callable[[str], None] = lambda note: None) -> SweepResult:
    """Run the sweep. `view` sees every event, `tell` hears what there is to say of the data. Interrupted by
    KeyboardInterrupt, it ends cleanly and can be resumed."""
    run, directory = plan.pipeline.run, plan.directory
    with lease(directory), contextlib.ExitStack() as stack:
        record = Record.replay(journal := directory / "events.jsonl")
        dataset = data.load(plan.pipeline.experiment.data, directory, plan.pipeline.experiment.task)
        for note in dataset.notes:
            tell(note)
        identity = _same_sweep(plan, dataset)
        tracker = stack.enter_context(MlflowTracker(plan.pipeline, directory, dataset, identity))
        tracker.replay(read(journal))
        start_ray(run)
        stack.callback(leave_ray)
        controls = _controls(plan, dataset, tracker)
        space = _screened(plan, dataset, tracker)
        # Tune starts several trials at once: whichever reaches the hub first, the control begins first.
        hub = start_hub(run.max_failures, "" if record.trials else "000-")
        stall = Stall(hub)
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
                goals=plan.goals,
                past=_past(record, plan),
                controls=controls,
            )
            pump.catch_up()
            best, *others = finalists = finalists_of(record, plan)
            if others:
                again = rerun(hub, record, finalists, plan.search.finalist_seeds, directory / "trials")
                pump.catch_up()
                best = winner_of(record, plan, finalists, again)
            control = record.searched[0]
            arms = {"control": control} | ({} if best is control else {"found": best})
            confirmed = confirm(hub, record, arms, plan.search.confirm_seeds, directory / "trials")
        result = _result(plan, record, best, confirmed, tracker.uri)
        _remember(plan, tracker, result, best)
    return replace(result, problems=(*confirmed.notes, *tracker.problems))


# -- the parts ------------------------------------------------------------------------------------------------------


def _same_sweep(plan: Plan, dataset: data.Dataset) -> str:
    """The sweep's own random identity; kept in its directory beside all that must not change when it is resumed."""
    now = {
        "experiment": plan.pipeline.experiment.digest,
        "data": dataset.digest,
        "space": hashlib.sha256(plan.space.text.encode()).hexdigest(),
        "search": plan.search.model_dump(
            mode="json", exclude={"trials", "finalists", "finalist_seeds", "confirm_seeds"}
        ),
    }
    return identity(plan.directory, now, _inputs(plan))


def _inputs(plan: Plan) -> dict[str, str]:
    return {"pipeline.yaml": yaml_io.dump(plan.pipeline.model_dump(mode="json")), "space.yaml": plan.space.text}


def _controls(plan: Plan, dataset: data.Dataset, tracker: MlflowTracker) -> list[str]:
    """Rung 0's control models, where it or a goal asks for them."""
    if not plan.search.screen and "text/fidelity" not in plan.goals.names:
        return []
    base = plan.pipeline.experiment
    found = screen.controls(plan.space, base, dataset=dataset, directory=plan.directory, run=plan.pipeline.run)
    tracker.summary({"cost/screen_steps": float(len(found) * base.optim.steps)})
    return found


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
    return replace(plan.space, start=(*plan.space.start, *found.points))


def _past(record: Record, plan: Plan) -> list[Past]:
    """The search's trials so far. One that failed stays failed: the same experiment would fail again."""
    return [
        Past(
            number=trial.number,
            point=trial.knobs,
            status=trial.outcome.status if trial.outcome else "interrupted",
            curve={report.step: report.metrics[plan.goals.metric] for report in trial.reports},
            metrics={name: value for name, value in trial.metrics.items() if name in plan.goals.names},
        )
        for trial in record.searched
    ]


def finalists_of(record: Record, plan: Plan) -> list[TrialRecord]:
    """The best of the finished trials that keep the constraints (of their Pareto front, where there are several
    objectives), and the control: it may win as well, and is asked to keep none.

    Raises `UserError` when no trial has finished.
    """
    finished = _finished(record)
    if not finished:
        errors = {t.outcome.error for t in record.searched if t.outcome and t.outcome.error}
        raise UserError(f"no trial has finished: {'; '.join(sorted(errors)) or 'all were stopped'}")
    control, ranked = record.searched[0], _front(record, plan)
    if not ranked and control not in finished:
        raise UserError(f"the control has not finished, and nothing else can be chosen. {_unmet(record, plan)}")
    if not plan.search.finalist_seeds:
        return ranked[:1] or [control]
    best = ranked[: plan.search.finalists]
    return best if control in best else [*best, control]


def _finished(record: Record) -> list[TrialRecord]:
    return [t for t in record.searched if t.outcome and t.outcome.status == "finished" and t.outcome.model_dir]


def _front(record: Record, plan: Plan) -> list[TrialRecord]:
    """The finished trials that may be chosen, the best one first."""
    finished = _finished(record)
    return [finished[at] for at in plan.goals.front([trial.metrics for trial in finished])]


def _unmet(record: Record, plan: Plan) -> str:
    """One sentence where no trial but the control keeps the constraints, else nothing."""
    others = {trial.trial_id: trial.metrics for trial in record.searched[1:] if trial.reports}
    kept = any(plan.goals.kept(metrics) for metrics in others.values())
    return "" if kept or not plan.goals.bounds else plan.goals.unmet(others)


def winner_of(record: Record, plan: Plan, finalists: list[TrialRecord], again: list[list[str]]) -> TrialRecord:
    """The finalist whose fresh trials, `again` by id, have the best mean; the first one where none got through."""
    sign = -1 if plan.goals.mode == "min" else 1

    def mean(names: list[str]) -> float:
        values = [record.trials[name].value(plan.goals.metric) for name in names]
        known = [value for value in values if value is not None]
        return sign * sum(known) / len(known) if known else float("-inf")

    means = [mean(names) for names in again]
    return finalists[means.index(max(means))]


def _result(plan: Plan, record: Record, best: TrialRecord, confirmed: Confirmed, uri: str) -> SweepResult:
    task, seeds = plan.pipeline.experiment.task, len(next(iter(confirmed.arms[0].scores.values())))
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
        sentence=_unmet(record, plan) or analysis.verdict(confirmed.gain, seeds, task.score),
        score=task.score,
        front=_table_of(record, plan) if plan.goals.also else (),
    )


def _table_of(record: Record, plan: Plan) -> tuple[dict[str, Any], ...]:
    """The Pareto front: each trial's name and what it says of every metric that the goals name."""
    return tuple(
        {"trial": trial.trial_id, **{name: trial.metrics.get(name) for name in plan.goals.names}}
        for trial in _front(record, plan)
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
        **({"front.tsv": report.front(result)} if result.front else {}),
    }.items():
        (plan.directory / path).write_text(text, encoding="utf-8")
        tracker.artifact(path, text)
    tracker.summary(
        {f"test/{a.name}": a.test.mean for a in result.arms} | {"test/gain": result.gain.mean if result.gain else 0.0}
    )
