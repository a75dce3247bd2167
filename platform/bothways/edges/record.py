"""A sweep's own memory: what its hub's events say, kept as an append-only file from which the sweep can be resumed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import ray

from bothways.edges.hub import Event, Outcome
from bothways.results import Report

Sink = Callable[[Event], None]


@dataclass
class TrialRecord:
    """What is known of one trial. `number` counts from 0 in the order of proposal."""

    trial_id: str
    experiment: Mapping[str, Any]
    knobs: Mapping[str, Any]
    reports: list[Report] = field(default_factory=list)
    outcome: Outcome | None = None

    def value(self, metric: str) -> float | None:
        """The last report's `metric`; None before the first report."""
        return self.reports[-1].metrics[metric] if self.reports else None


class Record:
    """Collects the trials of a sweep from its events, and appends them to `events.jsonl`."""

    def __init__(self, file: Path) -> None:
        self.trials: dict[str, TrialRecord] = {}
        self._file = file
        self._open: IO[str] | None = None

    @classmethod
    def replay(cls, file: Path) -> Record:
        """The record that an earlier process of this sweep has left. A last line cut short by a kill is skipped."""
        record = cls(file)
        for line in _lines(file):
            record._take(line)
        return record

    def __call__(self, event: Event) -> None:
        plain = {k: v for k, v in asdict(event).items() if v not in (None, "", -1)}
        self._take(plain)
        if self._open is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._open = self._file.open("a", encoding="utf-8")
        self._open.write(json.dumps(plain, ensure_ascii=False) + "\n")
        self._open.flush()

    def _take(self, event: Mapping[str, Any]) -> None:
        match event["kind"]:
            case "begin":
                job = event["job"]
                self.trials.setdefault(
                    job["trial_id"], TrialRecord(job["trial_id"], job["experiment"], job["knobs"])
                ).outcome = None
            case "report":
                trial = self.trials[event["trial_id"]]
                report = Report(**event["report"])
                if not trial.reports or report.step > trial.reports[-1].step:
                    trial.reports.append(report)
            case "end" if event["trial_id"] in self.trials:
                self.trials[event["trial_id"]].outcome = Outcome(**event["outcome"])


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


class Pump(threading.Thread):
    """Carries the hub's events to the sinks, and names a stall: no event for `stall_timeout_s` while work is open.

    `on_stall` is called once, with one line on what is waited for.
    """

    def __init__(self, hub: Any, sinks: list[Sink], stall_timeout_s: float, on_stall: Callable[[str], None]) -> None:
        super().__init__(name="events", daemon=True)
        self._hub = hub
        self._sinks = sinks
        self._patience = stall_timeout_s
        self._on_stall = on_stall
        self._ended = threading.Event()

    def run(self) -> None:
        seen, idle = 0, 0.0
        while True:
            last = self._ended.is_set()
            events: list[Event] = ray.get(self._hub.events.remote(seen, 0.0 if last else 1.0))
            for event in events:
                for sink in self._sinks:
                    sink(event)
            seen += len(events)
            if last and not events:
                return
            idle = 0.0 if events else idle + 1.0
            if idle >= self._patience:
                waiting = "; ".join(ray.get(self._hub.status.remote()))
                self._on_stall(f"no progress for {self._patience:.0f} s: {waiting}")
                idle = float("-inf")

    def drain(self) -> None:
        """Carry what is left, then end."""
        self._ended.set()
        self.join(timeout=30)
