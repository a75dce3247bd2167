"""The 2 x 2 of input side and output side on warm lanes: all arms with all seeds, and a learning curve beside."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from bothways import comparison, data, learning_curve
from bothways.comparison import Comparison, Setting
from bothways.config import Experiment, Pipeline, yaml_io
from bothways.data import Dataset
from bothways.edges import fresh
from bothways.edges.fresh import Paired
from bothways.edges.lease import identity, lease, sweep_directory
from bothways.edges.mlflow_tracking import MlflowTracker
from bothways.edges.ray_cluster import leave_ray, start_hub, start_ray
from bothways.edges.ray_train import Lanes
from bothways.edges.record import Pump, Record, Sink, Stall, read

Point = str | int
"""What is trained with every seed: an arm by its name, or the arm `none` with so many training rows."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a comparison is to do, all of it checked before Ray starts. `larger`: the data with more training rows, by
    their number: what the learning curve is made of."""

    pipeline: Pipeline
    arms: Mapping[str, Experiment]
    seeds: int
    directory: Path
    dataset: Dataset
    larger: Mapping[int, Dataset]
    remarks: tuple[str, ...]

    @property
    def trainings(self) -> int:
        return (len(self.arms) + len(self.larger)) * self.seeds


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What came of it. `text`: Markdown. `problems`: what did not go as it should, one line each."""

    found: Comparison
    text: str
    directory: str
    tracking_uri: str
    problems: tuple[str, ...]


def plan(pipeline: Pipeline, *, seeds: int, curve: bool, resume: bool) -> Plan:
    """Check that there is something to compare, read the data and choose the directory. Raises `UserError`."""
    experiment = pipeline.experiment
    arms = comparison.arms(experiment)
    directory = sweep_directory(Path(pipeline.run.storage).resolve(), f"{pipeline.name}-compare", resume=resume)
    dataset = data.load(experiment.data, directory, experiment.task)
    larger, why = _larger(experiment, dataset) if curve else ({}, "")
    return Plan(
        pipeline=pipeline,
        arms=arms,
        seeds=seeds,
        directory=directory,
        dataset=dataset,
        larger=larger,
        remarks=(*comparison.remarks(experiment, arms), *([why] if why else [])),
    )


def compare(plan: Plan, view: Sink) -> Proof:
    """Train all of it. `view` sees every event. Interrupted by KeyboardInterrupt, it ends and can be resumed."""
    run, directory = plan.pipeline.run, plan.directory
    with lease(directory), contextlib.ExitStack() as stack:
        record = Record.replay(journal := directory / "events.jsonl")
        kept = {"experiment": plan.pipeline.experiment.digest, "data": plan.dataset.digest}
        inputs = {"pipeline.yaml": yaml_io.dump(plan.pipeline.model_dump(mode="json"))}
        tracker = stack.enter_context(
            MlflowTracker(plan.pipeline, directory, plan.dataset, identity(directory, kept, inputs))
        )
        tracker.replay(read(journal))
        start_ray(run)
        stack.callback(leave_ray)
        hub = start_hub(run.max_failures)
        stall = Stall(hub)
        pump = Pump(hub, [record, tracker, view], run.stall_timeout_s, stall)
        pump.start()
        stack.callback(pump.drain)
        larger = {rows: ray.put(dataset) for rows, dataset in plan.larger.items()}
        with stall.named(), Lanes(hub, ray.put(plan.dataset), run, directory, larger):
            ended = fresh.paired(fresh.outcomes(hub, record, _jobs(plan)))
            pump.catch_up()
        found, setting = _read(plan, ended)
        text = comparison.markdown(found, setting)
        files = {**inputs, "comparison.md": text, "comparison.json": _json(found, setting, ended)}
        for path, content in files.items():
            (directory / path).write_text(content, encoding="utf-8")
            tracker.artifact(path, content)
        tracker.summary(_summary(found))
    return Proof(
        found=found,
        text=text,
        directory=str(directory),
        tracking_uri=tracker.uri,
        problems=(*ended.notes, *tracker.problems),
    )


# -- the parts ------------------------------------------------------------------------------------------------------


def _larger(experiment: Experiment, dataset: Dataset) -> tuple[dict[int, Dataset], str]:
    """The data with more training rows and the same test rows; or none, and why."""

    def load(rows: int | None) -> Dataset:
        return data.load(_with_rows(experiment, rows).data, task=experiment.task)

    if experiment.data.fold:
        return {}, "No learning curve: the data are one fold of a cross-validation, which has no more rows."
    base = dataset.train.num_rows
    available = base if experiment.data.splits.train is None else load(None).train.num_rows
    found = {rows: load(rows) for rows in learning_curve.sizes(base, available)}
    assert all(larger.test.equals(dataset.test) for larger in found.values())
    rows = f"training has {base:,} of {available:,} rows"
    return found, "" if found else f"No learning curve: {rows}, which leaves too few for another point."


def _with_rows(experiment: Experiment, rows: int | None) -> Experiment:
    splits = experiment.data.splits.model_copy(update={"train": rows})
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"splits": splits})})


def _jobs(plan: Plan) -> dict[tuple[Point, int], Any]:
    """The dearest arms first: a lane that begins one last would end alone."""
    trained: dict[Point, Experiment] = {name: plan.arms[name] for name in reversed(list(plan.arms))}
    trained |= {rows: _with_rows(plan.arms["none"], rows) for rows in plan.larger}

    def job(point: Point, k: int) -> Any:
        name = f"none-{point}-rows" if isinstance(point, int) else point
        return fresh.job(name, trained[point], fresh.COMPARE + k, plan.directory / "trials", arm=name, score_test=True)

    return {(point, k): job(point, k) for point in trained for k in range(plan.seeds)}


def _read(plan: Plan, ended: Paired[Point]) -> tuple[Comparison, Setting]:
    curve = {plan.dataset.train.num_rows: ended.hits("none")} | {rows: ended.hits(rows) for rows in plan.larger}
    found = comparison.compare({name: ended.hits(name) for name in plan.arms}, curve)
    first = plan.pipeline.experiment.seed + fresh.COMPARE
    setting = Setting(
        title=plan.directory.name,
        experiment=plan.pipeline.experiment,
        seeds=tuple(first + k for k in ended.seeds),
        rows=plan.dataset.test.num_rows,
        remarks=plan.remarks,
    )
    return found, setting


def _json(found: Comparison, setting: Setting, ended: Paired[Point]) -> str:
    """All numbers, and the metrics and names of the trainings behind them."""
    whole = {
        "title": setting.title,
        "seeds": setting.seeds,
        "steps": setting.experiment.optim.steps,
        "score": setting.score,
        "rows": setting.rows,
        **asdict(found),
        "metrics": {str(point): ended.scores(point) for point in ended.outcomes},
        "trials": {str(point): [each.trial_id for each in of] for point, of in ended.outcomes.items()},
        "remarks": setting.remarks,
        "left_out": ended.notes,
        "experiment": setting.experiment.spec(),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _summary(found: Comparison) -> dict[str, float]:
    """What MLflow has of it as metrics."""
    estimates = {name: arm.test for name, arm in found.arms.items()}
    estimates |= {f"{name}_over_{other}": gain for name, arm in found.arms.items() for other, gain in arm.over.items()}
    estimates |= {f"none_{rows}_rows": point.test for rows, point in found.curve.items()}
    estimates |= {"synergy": found.synergy} if found.synergy else {}
    values = {
        f"compare/{name}{end}": value
        for name, each in estimates.items()
        for end, value in (("", each.mean), ("_low", each.low), ("_high", each.high))
    }
    return values | {f"compare/{name}_in_labels": w.more for name, w in found.worth.items() if w.more is not None}
