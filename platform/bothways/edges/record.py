"""A sweep's own memory: what its hub's events say, kept as an append-only file from which the sweep can be resumed."""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import ray

from bothways.edges.hub import Event, Job, Outcome
from bothways.errors import UserError, one_line
from bothways.results import Report

Sink = Callable[[Event], None]


@dataclass
class TrialRecord:
    """What is known of one trial."""

    trial_id: str
    experiment: Mapping[str, Any]
    knobs: Mapping[str, Any]
    reports: list[Report] = field(default_factory=list)
    outcome: Outcome | None = None

    @property
    def number(self) -> int:
        """From 0, in the order of proposal: the id of a trial of the search begins with it."""
        return int(self.trial_id.split("-", 1)[0])

    @property
    def metrics(self) -> dict[str, float]:
        """What it has last said of each metric; some are in its first report only."""
        return {name: value for report in self.reports for name, value in report.metrics.items()}

    def value(self, metric: str) -> float | None:
        """The last report's `metric`; None before the first report."""
        return self.reports[-1].metrics[metric] if self.reports else None


def read(file: Path) -> Iterator[Event]:
    """The events that an earlier process has left, in order. A last line cut short by a kill is cut off."""
    if not file.exists():
        return
    whole = file.read_bytes().rpartition(b"\n")[0]
    os.truncate(file, len(whole) + bool(whole))
    yield from map(_event, whole.split(b"\n") if whole else ())


def _event(line: bytes) -> Event:
    plain = json.loads(line)
    for name, kind in (("job", Job), ("report", Report), ("outcome", Outcome)):
        if name in plain:
            plain[name] = kind(**plain[name])
    if outcome := plain.get("outcome"):
        plain["outcome"] = replace(outcome, hits=tuple(outcome.hits))  # JSON has no tuples
    return Event(**plain)


class Record:
    """Collects the trials of a sweep from its events, and appends them to `events.jsonl`."""

    def __init__(self, file: Path) -> None:
        self.trials: dict[str, TrialRecord] = {}
        self._file = file
        self._open: IO[str] | None = None

    @classmethod
    def replay(cls, file: Path) -> Record:
        """The record that an earlier process of this sweep has left."""
        record = cls(file)
        for event in read(file):
            record._take(event)
        return record

    @property
    def searched(self) -> list[TrialRecord]:
        """The trials that the search proposed, in that order."""
        found = [trial for name, trial in self.trials.items() if name[0].isdigit()]
        return sorted(found, key=lambda trial: trial.number)

    def __call__(self, event: Event) -> None:
        self._take(event)
        plain = {k: v for k, v in asdict(event).items() if v not in (None, "", -1)}
        if self._open is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._open = self._file.open("a", encoding="utf-8")
        self._open.write(json.dumps(plain, ensure_ascii=False) + "\n")
        self._open.flush()

    def _take(self, event: Event) -> None:
        if event.job is not None:
            begun = TrialRecord(event.job.trial_id, event.job.experiment, event.job.knobs)
            self.trials.setdefault(begun.trial_id, begun).outcome = None
        elif (trial := self.trials.get(event.trial_id)) is None:
            return  # of a lane, or of a trial that has never begun
        elif event.report is not None:
            if not trial.reports or event.report.step > trial.reports[-1].step:
                trial.reports.append(event.report)
        else:
            trial.outcome = event.outcome


class Pump(threading.Thread):
    """Carries the hub's events to the sinks, and names a stall: no event for `stall_timeout_s` while work is open.

    `on_stall` is called once, with one line on what is waited for, or on why an event could not be recorded.
    """

    def __init__(self, hub: Any, sinks: list[Sink], stall_timeout_s: float, on_stall: Callable[[str], None]) -> None:
        super().__init__(name="events", daemon=True)
        self._hub = hub
        self._sinks = list(sinks)
        self._patience = stall_timeout_s
        self._on_stall = on_stall
        self._ended = threading.Event()
        self._seen = 0

    def run(self) -> None:
        idle = 0.0
        while True:
            last = self._ended.is_set()
            events: list[Event] = ray.get(self._hub.events.remote(self._seen, 0.0 if last else 1.0))
            for event in events:
                for sink in list(self._sinks):
                    try:
                        sink(event)
                    except Exception as error:  # a full disk, a closed terminal: say so, carry on with the others
                        self._sinks.remove(sink)
                        self._on_stall(f"what happens can no longer be written down: {one_line(error)}")
            self._seen += len(events)
            if last and not events:
                return
            idle = 0.0 if events else idle + 1.0
            if idle >= self._patience:
                waiting = "; ".join(ray.get(self._hub.status.remote()))
                self._on_stall(f"no progress for {self._patience:.0f} s: {waiting}")
                idle = float("-inf")

    def catch_up(self) -> None:
        """Wait until the sinks have seen all that has happened so far."""
        happened = ray.get(self._hub.happened.remote())
        while self._seen < happened and self.is_alive():
            time.sleep(0.01)

    def drain(self) -> None:
        """Carry what is left, then end."""
        self._ended.set()
        self.join(timeout=30)


class Stall:
    """Ends a sweep that makes no progress (a pump's `on_stall`), and says what it waited for."""

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
