"""The switchboard between a search and its lanes: jobs out, reports back, decisions forth.

One `Hub` per sweep, an actor outside every lane, so that a lane can die and come back without losing a trial.
Written without Ray: `ray_train` makes an actor of it, the tests run it as it is.

A lane is a group of workers (ranks). Every rank asks for job number `seq` of its lane's current `attempt`; the first to
ask takes it from the one queue, the others get the same. Reports of a search are in lock-step: the lane waits until the
scheduler has asked for more or said stop, so a stopped trial ends exactly at its rung.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
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
    """

    trial_id: str
    experiment: Mapping[str, Any]
    directory: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    lock_step: bool = True
    score_test: bool = False
    folds: int = 0
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended. `hits` tells for every test row whether it was right; `error` and `note` are one line each."""

    trial_id: str
    status: Status
    model_dir: str = ""
    test: Mapping[str, float] = field(default_factory=dict)
    hits: tuple[bool, ...] = ()
    error: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened, for the driver's record and screen. `at`: seconds, monotonic, since the hub began."""

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
    """One trial's state: how often Tune asked for a report, how many it got, and how it ended."""

    job: Job
    attempts: int = 0
    step: int = -1
    asked: int = 0
    delivered: int = 0
    pending: Report | None = None
    stop: bool = False
    interrupted: bool = False
    outcome: Outcome | None = None

    @property
    def decision(self) -> Decision:
        return ("interrupt" if self.interrupted else "stop") if self.stop else "go"


class Hub:
    """See the module's docstring. `max_attempts`: how often one trial may lose its worker before it fails.

    `first`: how the id of the trial begins that must begin before any other, however late it is submitted.
    """

    def __init__(self, max_attempts: int = 3, first: str = "") -> None:
        self._max_attempts = max_attempts
        self._first = first
        self._born = time.monotonic()
        self._lines: dict[str, _Line] = {}
        self._queue: deque[str] = deque()
        self._orders: dict[tuple[int, str], tuple[int, asyncio.Future[Job | None]]] = {}
        self._attempt: dict[int, str] = {}
        self._running: dict[int, str] = {}
        self._doing: dict[int, tuple[str, float]] = {}
        self._events: list[Event] = []
        self._closed = False
        self._changed = asyncio.Condition()

    # -- the search's side ------------------------------------------------------------------------------------------

    async def submit(self, job: Job) -> None:
        """Queue a job. A trial that is already known is left alone (its submitter was restarted)."""
        if job.trial_id not in self._lines:
            self._lines[job.trial_id] = _Line(job)
            self._queue.append(job.trial_id)
            if self._closed:
                self._end(Outcome(trial_id=job.trial_id, status="interrupted"))
        await self._notify()

    async def next_report(self, trial_id: str) -> Report | Outcome:
        """The trial's next report, or how it ended. Asking again is the permission to go on."""
        line = self._lines[trial_id]
        line.asked += 1
        await self._notify()
        await self._until(lambda: line.pending is not None or line.outcome is not None)
        if line.pending is None:
            assert line.outcome is not None
            return line.outcome
        report, line.pending = line.pending, None
        line.delivered += 1
        return report

    async def outcome(self, trial_id: str) -> Outcome:
        """How the trial ended, once it has."""
        line = self._lines[trial_id]
        await self._until(lambda: line.outcome is not None)
        assert line.outcome is not None
        return line.outcome

    async def stop(self, trial_id: str) -> None:
        """The scheduler's stop: reaches the lane as the answer to its report."""
        line = self._lines.get(trial_id)
        if line is None or line.outcome is not None:
            return
        line.stop = True
        if trial_id in self._queue:
            self._queue.remove(trial_id)
            self._end(Outcome(trial_id=trial_id, status="stopped"))
        await self._notify()

    async def events(self, since: int, timeout_s: float = 1.0) -> list[Event]:
        """Every event from number `since` on; waits up to `timeout_s` for one."""
        try:
            await asyncio.wait_for(self._until(lambda: len(self._events) > since), timeout_s)
        except TimeoutError:
            return []
        return self._events[since:]

    async def close(self, error: str = "") -> None:
        """No more jobs. What is unfinished ends now, as `interrupted`, or as failed with `error`.

        A lane in the middle of a trial hears of it at its next report, and what it says then changes nothing.
        """
        self._closed = True
        for line in self._lines.values():
            line.interrupted = not line.stop
            line.stop = True
            if line.outcome is None:
                status: Status = "failed" if error else "interrupted"
                self._end(Outcome(trial_id=line.job.trial_id, status=status, error=error))
        self._queue.clear()
        await self._notify()

    async def status(self) -> list[str]:
        """One line a lane: what it does and since how many seconds. For whoever has to explain a stall."""
        now = time.monotonic()
        lines = [f"lane {lane} {what} for {now - since:.0f} s" for lane, (what, since) in sorted(self._doing.items())]
        return [*(lines or ["no lane has started"]), f"{len(self._queue)} trials are queued"]

    # -- the lanes' side --------------------------------------------------------------------------------------------

    async def lane_started(self, lane: int, attempt: str) -> None:
        """Rank 0 of a (re)started lane. A trial the lane's former workers had goes back to the front of the queue."""
        self._attempt[lane] = attempt
        self._orders.pop((lane, attempt), None)
        self._do(lane, "waits for a trial")
        self._record("lane", lane=lane, note="started")
        self._orphan(lane, "its worker died")
        await self._notify()

    async def lane_failed(self, lane: int, error: str) -> None:
        """The lane's worker group ended with an error and will not come back by itself."""
        self._attempt.pop(lane, None)
        self._do(lane, "has failed")
        self._record("lane", lane=lane, note=error)
        self._orphan(lane, error)
        await self._notify()

    async def next_job(self, lane: int, attempt: str, seq: int) -> Job | None:
        """Job number `seq` of this lane: the same for each rank. None when there will be no more."""
        known = self._orders.get((lane, attempt))
        if known is None or known[0] != seq:
            future: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
            self._orders[lane, attempt] = (seq, future)
            await self._until(lambda: self._closed or self._has_next() or self._attempt.get(lane) != attempt)
            future.set_result(self._take(lane, attempt))
            return future.result()
        return await asyncio.shield(known[1])

    async def report(self, trial_id: str, report: Report) -> Decision:
        """Rank 0's report. The answer waits for the scheduler's where the job is in lock-step."""
        line = self._lines[trial_id]
        if report.step <= line.step:  # a resumed trial repeats what is known
            return line.decision
        line.step = report.step
        line.pending = report
        number = line.delivered + 1
        self._record("report", trial_id=trial_id, report=report)
        await self._notify()
        if line.job.lock_step:
            await self._until(lambda: line.stop or line.asked > number or line.outcome is not None)
        return line.decision

    async def finish(self, lane: int, outcome: Outcome) -> None:
        """Rank 0: the job has ended. Only the first end of a trial counts."""
        if self._running.get(lane) == outcome.trial_id:
            del self._running[lane]
            self._do(lane, "waits for a trial")
        self._end(outcome)
        await self._notify()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _has_next(self) -> bool:
        if self._first:
            held = [trial_id for trial_id in self._queue if trial_id.startswith(self._first)]
            if not held:
                return False
            self._queue.remove(held[0])
            self._queue.appendleft(held[0])
            self._first = ""
        return bool(self._queue)

    def _take(self, lane: int, attempt: str) -> Job | None:
        if self._attempt.get(lane) != attempt or not self._queue:
            return None
        line = self._lines[self._queue.popleft()]
        line.attempts += 1
        self._running[lane] = line.job.trial_id
        self._do(lane, f"trains {line.job.trial_id}")
        if line.attempts == 1:
            self._record("begin", lane=lane, trial_id=line.job.trial_id, job=line.job)
        return line.job

    def _orphan(self, lane: int, why: str) -> None:
        trial_id = self._running.pop(lane, None)
        if trial_id is None or self._lines[trial_id].outcome is not None:
            return
        if self._lines[trial_id].attempts >= self._max_attempts:
            error = f"{why} {self._max_attempts} times" if self._max_attempts > 1 else why
            self._end(Outcome(trial_id=trial_id, status="failed", error=error))
        else:
            self._queue.appendleft(trial_id)

    def _end(self, outcome: Outcome) -> None:
        line = self._lines[outcome.trial_id]
        if line.outcome is None:
            line.outcome = outcome
            self._record("end", trial_id=outcome.trial_id, outcome=outcome)

    def _do(self, lane: int, what: str) -> None:
        self._doing[lane] = (what, time.monotonic())

    def _record(self, kind: Literal["lane", "begin", "report", "end"], **what: Any) -> None:
        self._events.append(Event(kind=kind, at=time.monotonic() - self._born, **what))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(ready)
