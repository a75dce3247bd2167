"""A loop carried out: stage after stage, each found done or done, recorded, and what follows decided by what it found.

A stage's directory is named by a digest of all that it follows from: its own settings, its data's content, and the
digests of the stages that it starts from. One whose result lies there is not run again, in this run of the loop or any
later one; a training that was interrupted goes on from its checkpoint, a search from its record. So a loop is resumed
by running it again, and a changed stage runs anew with all that start from it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bothways.assets.files import write_whole
from bothways.edges.hub import Event, Job, Outcome
from bothways.edges.lease import lease
from bothways.edges.loop_stages import Workshop
from bothways.edges.loop_work import Waits, Work
from bothways.edges.mlflow_tracking import MlflowTracker
from bothways.loop import END, Flow, Loop, references, results
from bothways.loop.results import LoopResult, Result, Step
from bothways.results import Report

Say = Callable[[str], None]


def directory_of(loop: Loop) -> Path:
    """Where a loop lives: the same for every run of it."""
    return Path(loop.run.storage).resolve() / f"{loop.name}-loop"


def run(loop: Loop, *, on_ray: bool, say: Say, on_step: Callable[[Step], None]) -> LoopResult:
    """Run the loop to its end, or until somebody has to fill in labels. `say`: hears of progress within a stage;
    `on_step`: of every stage that has ended.

    Raises `UserError`, `ConflictError` where another process runs it.
    """
    directory = directory_of(loop)
    with lease(directory):
        with MlflowTracker(loop, directory, None, _identity(directory)) as tracker:
            flow = Flow(loop.stages)
            workshop = Workshop(loop, flow, tracker.uri, on_ray, say)
            runner = _Runner(workshop, tracker, directory, say)
            at, steps = loop.stages[0].name, list[Step]()
            waiting = ""
            while at != END and not waiting:
                step, result = runner.step(at, len(steps))
                if isinstance(result, Waits):
                    waiting = result.what
                else:
                    at, why = flow.after(loop.stage(at), result.metrics)
                    step = replace(step, why=why or ("the end" if at == END else ""))
                    workshop.last[step.stage] = Path(step.directory), result
                steps.append(step)
                on_step(step)
                so_far = LoopResult(
                    name=loop.name, directory=str(directory), tracking_uri=tracker.uri, steps=steps, waiting=waiting
                )
                table = results.markdown(so_far)
                (directory / "result.md").write_text(table, encoding="utf-8")
                tracker.artifact("result.md", table)
            tracker.summary(_summary(steps))
        return replace(so_far, problems=tuple(tracker.problems))


def _identity(directory: Path) -> str:
    """The loop's own random identity, kept in its directory."""
    file = directory / "loop.json"
    if not file.exists():
        write_whole(file, json.dumps({"id": uuid.uuid4().hex}))
    return str(json.loads(file.read_text("utf-8"))["id"])


def _summary(steps: list[Step]) -> dict[str, float]:
    """The last value of every metric of every stage."""
    return {f"{step.stage}/{name}": value for step in steps for name, value in step.metrics.items()}


@dataclass(frozen=True)
class _Runner:
    workshop: Workshop
    tracker: MlflowTracker
    directory: Path
    say: Say

    def step(self, name: str, number: int) -> tuple[Step, Result | Waits]:
        """Run a stage, or find it done."""
        stage = self.workshop.loop.stage(name)
        work = self.workshop.work(stage)
        digest = references.digest({"format": results.FORMAT, "kind": stage.kind, **_plain(work.identity)})
        directory = self.directory / "stages" / f"{name}-{digest}"
        known = results.read(directory)
        found = known is not None and work.holds(directory, known)
        trial = f"{name}-{self.workshop.flow.round(name) + 1}-{digest[:8]}"
        result: Result | Waits
        if known is not None and found:
            result = known
            self.tracker.replay(_story(trial, work, result))
        else:
            result = self._run(stage.kind, work, digest, directory, trial)
        done = isinstance(result, Result)
        return Step(
            number=number + 1,
            stage=name,
            kind=stage.kind,
            directory=str(directory),
            metrics=result.metrics if isinstance(result, Result) else {},
            seconds=result.seconds if isinstance(result, Result) else 0.0,
            found=found,
            why="" if done else "waiting for labels",
        ), result

    def _run(self, kind: str, work: Work, digest: str, directory: Path, trial: str) -> Result | Waits:
        directory.mkdir(parents=True, exist_ok=True)
        began, reports = time.time(), list[Report]()
        self.tracker(_began(trial, work, began))

        def on_report(report: Report) -> None:
            reports.append(report)
            self.tracker(Event(kind="report", at=time.time(), trial_id=trial, report=report))
            shown = "  ".join(f"{name} {value:.4f}" for name, value in report.metrics.items() if _is_shown(name))
            self.say(f"{trial}  step {report.step:>5}/{report.steps}  {shown}")

        try:
            done = work.do(directory, on_report)
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            outcome = Outcome(trial_id=trial, status=status, error=str(error)[:300])  # type: ignore[arg-type]
            self.tracker(Event(kind="end", at=time.time(), trial_id=trial, outcome=outcome))
            raise
        if isinstance(done, Waits):
            outcome = Outcome(trial_id=trial, status="interrupted", note=done.what)
            self.tracker(Event(kind="end", at=time.time(), trial_id=trial, outcome=outcome))
            return done
        result = Result(
            digest=digest,
            kind=kind,
            metrics=dict(done.metrics),
            gives=dict(done.gives),
            identities=dict(done.identities),
            began=began,
            ended=time.time(),
            reports=tuple(reports),
        )
        results.write(directory, result)
        for event in _end(trial, result):
            self.tracker(event)
        return result


def _is_shown(name: str) -> bool:
    return name == "train/loss" or name in ("selection/accuracy", "selection/log_loss")


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(identity)))
    return plain


def _began(trial: str, work: Work, at: float) -> Event:
    job = Job(trial_id=trial, experiment=_plain(work.spec), directory="")
    return Event(kind="begin", at=at, trial_id=trial, job=job)


def _story(trial: str, work: Work, result: Result) -> list[Event]:
    """What happened in a stage that was done before, for a store that may not have it."""
    reports = [
        Event(kind="report", at=result.began + report.seconds, trial_id=trial, report=report)
        for report in result.reports
    ]
    return [_began(trial, work, result.began), *reports, *_end(trial, result)]


def _end(trial: str, result: Result) -> list[Event]:
    """The metrics of a stage that has ended, one step after its last report, and its end."""
    step = max((report.step for report in result.reports), default=0) + 1
    metrics = {f"stage/{name}": value for name, value in result.metrics.items()}
    last = Report(step=step, steps=step, metrics=metrics, seconds=result.seconds)
    outcome = Outcome(trial_id=trial, status="finished")
    return [
        Event(kind="report", at=result.ended, trial_id=trial, report=last),
        Event(kind="end", at=result.ended, trial_id=trial, outcome=outcome),
    ]
