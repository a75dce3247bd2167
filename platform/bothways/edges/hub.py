"""The switchboard between a search and its lanes: jobs out, reports back, decisions forth.

One `Hub` per sweep, an actor outside every lane, so that a lane can die and come back without losing a trial.
Written without Ray: `ray_train` makes an actor of it, the tests run it as it is.

A lane is a group of workers (ranks). Every rank asks for job number `seq` of its lane's current `attempt`; the first to
ask takes it from the one queue, the others get the same. Reports of a search are in lock-step: the lane waits until the
scheduler has asked for more or said stop, so a stopped trial ends exactly at its rung.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bothways.results import Report, Status

Decision = Literal["go", "stop", "interrupt"]
"""After a report: go on, stop for good, or leave off in a way that can be taken up again."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One trial for a lane. `knobs`: what the search chose for it (dotted path → value).

    `lock_step`: wait for a decision after each report. `score_test`: score the test rows at the end.
    `folds`, `repeats`: train the experiment's folds one after another (see `cross_validation`); 0: itself.
    `copies`: say what becomes of the text also where it is not changed. `controls`: directories of rung 0's models,
    which say whether labels stay; `perplexity`: the source of a language model that says how natural copies are.
    `arm`: what it is compared as, for MLflow.
    """

    trial_id: str
    experiment: Mapping[str, Any]
    directory: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    lock_step: bool = True
    score_test: bool = False
    folds: int = 0
    repeats: int = 1
    copies: bool = False
    controls: Sequence[str] = ()
    perplexity: str = ""
    arm: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended. `hits` tells for every test row how right it was, from 0 to 1; `error` and `note` are
    one line each."""

    trial_id: str
    status: Status
    model_dir: str = ""
    test: Mapping[str, float] = field(default_factory=dict)
    hits: tuple[float, ...] = ()
    error: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened, for the driver's record and screen. `at`: Unix seconds by the hub's clock, never going back."""

    kind: Literal["lane", "begin", "report", "end"]
    at: float
    lane: int = -1
    trial_id: str = ""
    job: Job | None = None
    report: Report | None = None
    outcome: Outcome | None = None
    note: str = ""


@dataclass
class _Line:
    """A trial that has not ended: which lane has it, how often Tune asked for a report, how many it got."""

    job: Job
    lane: int = -1
    attempts: int = 0
    step: int = -1
    asked: int = 0
    delivered: int = 0
    pending: Report | None = None
    stop: bool = False


@dataclass
class _Lane:
    """A lane's present workers: their `attempt`, what they do and since when, and job number `seq`, being awaited."""

    attempt: str
    doing: str
    since: float = field(default_factory=time.monotonic)
    seq: int = -1
    order: asyncio.Future[Job | None] | None = None


class Hub:
    """See the module's docstring. `max_attempts`: how often one trial may lose its worker before it fails.

    `first`: how the id of the trial begins that must begin before any other, however late it is submitted.
    """

    def __init__(self, max_attempts: int = 3, first: str = "") -> None:
        self._max_attempts = max_attempts
        self._first = first
        self._epoch = time.time() - time.monotonic()
        self._lines: dict[str, _Line] = {}
        self._ended: dict[str, Outcome] = {}
        self._queue: deque[str] = deque()
        self._lanes: dict[int, _Lane] = {}
        self._events: deque[Event] = deque()
        self._happened = 0
        self._closed = False
        self._changed = asyncio.Condition()

    # -- the search's side ------------------------------------------------------------------------------------------

    async def submit(self, job: Job) -> None:
        """Queue a job. A trial that is already known is left alone (its submitter was restarted)."""
        name = job.trial_id
        if name not in self._lines and name not in self._ended:
            self._lines[name] = _Line(job)
            if self._closed:
                self._end(Outcome(trial_id=name, status="interrupted"))
            elif self._first and name.startswith(self._first):
                self._first = ""  # now the others may follow
                self._queue.appendleft(name)
            else:
                self._queue.append(name)
        await self._notify()

    async def next_report(self, trial_id: str) -> Report | Outcome:
        """The trial's next report, or how it ended. Asking again is the permission to go on."""
        line = self._lines.get(trial_id)
        if line is not None:
            line.asked += 1
            await self._notify()
            await self._until(lambda: line.pending is not None or trial_id in self._ended)
            if line.pending is not None:
                report, line.pending = line.pending, None
                line.delivered += 1
                return report
        return self._ended[trial_id]

    async def outcome(self, trial_id: str) -> Outcome:
        """How the trial ended, once it has."""
        await self._until(lambda: trial_id in self._ended)
        return self._ended[trial_id]

    async def stop(self, trial_id: str) -> None:
        """The scheduler's stop: reaches the lane as the answer to its report."""
        if (line := self._lines.get(trial_id)) is None:
            return
        line.stop = True
        if trial_id in self._queue:
            self._queue.remove(trial_id)
            self._end(Outcome(trial_id=trial_id, status="stopped"))
        await self._notify()

    async def events(self, since: int, timeout_s: float = 1.0) -> list[Event]:
        """Every event from number `since` on; waits up to `timeout_s` for one. Those before `since` are forgotten."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._until(lambda: self._happened > since), timeout_s)
        while self._events and self._happened - len(self._events) < since:
            self._events.popleft()
        return list(self._events)

    async def happened(self) -> int:
        """The number of events so far."""
        return self._happened

    async def close(self, error: str = "") -> None:
        """No more jobs. What is unfinished ends now, as `interrupted`, or as failed with `error`.

        A lane in the middle of a trial hears of it at its next report, and what it says then changes nothing.
        """
        self._closed = True
        self._queue.clear()
        for trial_id in list(self._lines):
            self._end(Outcome(trial_id=trial_id, status="failed" if error else "interrupted", error=error))
        await self._notify()

    async def status(self) -> list[str]:
        """One line a lane: what it does and since how many seconds. For whoever has to explain a stall."""
        now = time.monotonic()
        lines = [f"lane {n} {lane.doing} for {now - lane.since:.0f} s" for n, lane in sorted(self._lanes.items())]
        return [*(lines or ["no lane has started"]), f"{len(self._queue)} trials are queued"]

    # -- the lanes' side --------------------------------------------------------------------------------------------

    async def lane_started(self, lane: int, attempt: str, where: str = "") -> None:
        """Rank 0 of a new worker group. What the lane's former workers had goes back to the front of the queue."""
        self._lanes[lane] = _Lane(attempt, "waits for a trial")
        self._record("lane", lane=lane, note=f"started {where}".rstrip())
        self._orphan(lane, "its worker died")
        await self._notify()

    async def lane_failed(self, lane: int, error: str) -> None:
        """The lane's worker group has ended with an error."""
        self._lanes[lane] = _Lane("", "has failed")
        self._record("lane", lane=lane, note=error)
        self._orphan(lane, error)
        await self._notify()

    async def lane_says(self, lane: int, note: str) -> None:
        """A lane gets on with something that makes no reports."""
        self._record("lane", lane=lane, note=note)
        await self._notify()

    async def next_job(self, lane: int, attempt: str, seq: int) -> Job | None:
        """Job number `seq` of this lane: the same for each rank. None when there will be no more."""
        workers = self._lanes[lane]
        if workers.attempt != attempt:
            return None
        if workers.order is None or workers.seq != seq:
            workers.seq, workers.order = seq, asyncio.ensure_future(self._take(lane, workers))
        return await asyncio.shield(workers.order)

    async def report(self, trial_id: str, report: Report) -> Decision:
        """Rank 0's report. The answer waits for the scheduler's where the job is in lock-step."""
        line = self._lines.get(trial_id)
        if line is not None and report.step > line.step:  # a resumed trial repeats what is known
            line.step, line.pending = report.step, report
            number = line.delivered + 1
            self._record("report", trial_id=trial_id, report=report)
            await self._notify()
            if line.job.lock_step:
                await self._until(lambda: line.stop or line.asked > number or trial_id in self._ended)
        if line is None or trial_id in self._ended:
            return "interrupt"
        return "stop" if line.stop else "go"

    async def finish(self, outcome: Outcome) -> None:
        """Rank 0: a trial has ended. Only the first end of a trial counts."""
        self._end(outcome)
        await self._notify()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _take(self, lane: int, workers: _Lane) -> Job | None:
        """The next job in the queue, for these workers while they are the lane's."""
        workers.doing, workers.since = "waits for a trial", time.monotonic()
        await self._until(
            lambda: self._closed or self._lanes[lane] is not workers or bool(self._queue and not self._first)
        )
        if self._closed or self._lanes[lane] is not workers:
            return None
        line = self._lines[self._queue.popleft()]
        line.lane = lane
        line.attempts += 1
        workers.doing, workers.since = f"trains {line.job.trial_id}", time.monotonic()
        if line.attempts == 1:
            self._record("begin", lane=lane, trial_id=line.job.trial_id, job=line.job)
        return line.job

    def _orphan(self, lane: int, why: str) -> None:
        """Put what a lane had back to the front of the queue: it goes on from its last checkpoint, here or elsewhere.

        It may have had two: one in training, and the one before it, whose model was still being written.
        """
        for trial_id, line in reversed([item for item in self._lines.items() if item[1].lane == lane]):
            line.lane = -1
            if line.attempts < self._max_attempts:
                self._queue.appendleft(trial_id)
            else:
                times = f" {self._max_attempts} times" if self._max_attempts > 1 else ""
                self._end(Outcome(trial_id=trial_id, status="failed", error=f"{why}{times}"))

    def _end(self, outcome: Outcome) -> None:
        if self._lines.pop(outcome.trial_id, None) is not None:
            self._ended[outcome.trial_id] = outcome
            self._record("end", trial_id=outcome.trial_id, outcome=outcome)

    def _record(self, kind: Literal["lane", "begin", "report", "end"], **what: Any) -> None:
        self._events.append(Event(kind=kind, at=self._epoch + time.monotonic(), **what))
        self._happened += 1

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(ready)
