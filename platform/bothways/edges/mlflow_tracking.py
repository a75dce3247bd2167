"""Tracking that nobody waits for: calls only queue, a thread of the tracker's own writes to MLflow.

There is one writer, the driver. MLflow itself is imported by that thread, at the first write: until then the processor
has lanes to start.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.config import Pipeline
from bothways.config.domains import source_name
from bothways.data import Dataset
from bothways.edges.hub import Event
from bothways.errors import one_line
from bothways.loop import Loop

if TYPE_CHECKING:
    from bothways.edges.mlflow_store import Store

log = logging.getLogger(__name__)

Task = Callable[["Store"], None]

PATIENCE_S = 60.0
"""How long the end of a run waits for a store that is away."""
HURRY_S = 8.0
"""How long it does when somebody has interrupted it: `--resume` makes up for what is left."""


def tracking_uri(storage: Path, configured: str | None = None) -> str:
    """The configured address, MLFLOW_TRACKING_URI, or a sqlite file in the run's storage."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(storage / 'mlflow.db').resolve()}"


def git_tags(where: Path) -> dict[str, str]:
    """The commit checked out at `where` and whether files differ from it.

    Outside git, what BOTHWAYS_GIT_COMMIT says (a submitted job's copy has no history); without it, nothing.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {
            "mlflow.source.git.commit": git("rev-parse", "HEAD"),
            "mlflow.source.git.branch": git("rev-parse", "--abbrev-ref", "HEAD"),
            "git.dirty": str(bool(git("status", "--porcelain"))).lower(),
        }
    except (OSError, subprocess.CalledProcessError):
        commit = os.environ.get("BOTHWAYS_GIT_COMMIT", "")
        return {"mlflow.source.git.commit": commit} if commit else {}


class MlflowTracker:
    """`contracts.Tracker` of what is run in `directory`. A context manager: leaving it writes what is queued.

    While the store is away, what is to be written waits in order, and is tried again; what it never takes is in the
    sweep's record still, from which `replay` makes up for it. All writes can be repeated without doubling anything.

    `dataset`: of a pipeline; None for a loop, whose stages have their own.
    `identity`: of the sweep, the same when it is resumed, another for a sweep that has come to bear its name.
    `problems`: what could not be written, one line each. `cpu_s`: what tracking has cost the processor so far.
    """

    def __init__(self, pipeline: Pipeline | Loop, directory: Path, dataset: Dataset | None, identity: str) -> None:
        storage = Path(pipeline.run.storage).resolve()
        storage.mkdir(parents=True, exist_ok=True)
        self.uri = tracking_uri(storage, pipeline.run.tracking_uri)
        self.problems: list[str] = []
        self.cpu_s = 0.0
        self._where = {"name": pipeline.name, "sweep": directory.name, "artifacts": storage / "mlartifacts"}
        self._tags = git_tags(Path(__file__).parent) | {"bothways.id": identity}
        self._data: tuple[str, Dataset, str] | None = None
        if dataset is not None:
            assert isinstance(pipeline, Pipeline)
            self._tags["bothways.data"] = dataset.digest
            self._data = (pipeline.name, dataset, source_name(pipeline.experiment.data.source))
        self._store: Store | None = None
        self._queue: queue.Queue[Task | None] = queue.Queue()
        self._closing = threading.Event()
        self._closed_at, self._patience = 0.0, PATIENCE_S
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)

    def __enter__(self) -> MlflowTracker:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        self._queue.put(lambda store: store.close(status))
        self._queue.put(None)
        self._closed_at, self._patience = time.monotonic(), PATIENCE_S if kind is None else HURRY_S
        self._closing.set()
        left = self.waiting + 1
        while self._thread.is_alive() and self.waiting < left:  # a slow store is waited for as long as it takes writes
            left = self.waiting
            self._thread.join(timeout=2 * self._patience)
        if left := self.waiting:
            self.problems.append(f"{self.uri} does not answer: {left - 1} writes are left, --resume makes up for them")

    @property
    def waiting(self) -> int:
        """How many writes are queued or under way."""
        return self._queue.unfinished_tasks

    def __call__(self, event: Event) -> None:
        """An event of the hub, as it happens."""
        if event.kind != "lane":
            self._queue.put(lambda store: _apply(store, event))

    def replay(self, events: Iterable[Event]) -> None:
        """What an earlier process of this sweep has recorded; trials that the store has in full are passed over."""
        stories: dict[str, list[Event]] = {}
        for event in events:
            stories.setdefault(event.trial_id, []).append(event)

        def write(story: list[Event], store: Store) -> None:
            steps = [event.report.step for event in story if event.report]
            ends = [event.outcome.status for event in story if event.outcome]
            if not store.has(story[0].trial_id, max(steps, default=-1), ends[-1] if ends else ""):
                for event in story:
                    _apply(store, event)

        for story in stories.values():
            self._queue.put(functools.partial(write, story))

    def begin(self, trial_id: str, name: str, experiment: Mapping[str, Any], knobs: Mapping[str, Any]) -> None:
        self._queue.put(lambda store: store.begin(trial_id, name, experiment, knobs))

    def report(self, trial_id: str, step: int, metrics: Mapping[str, float]) -> None:
        at = _now()
        self._queue.put(lambda store: store.report(trial_id, step, metrics, at))

    def end(self, trial_id: str, status: str, test: Mapping[str, float], model_dir: str = "", error: str = "") -> None:
        at = _now()
        self._queue.put(lambda store: store.end(trial_id, status, test, model_dir, error, at))

    def artifact(self, path: str, text: str) -> None:
        self._queue.put(lambda store: store.artifact(path, text))

    def summary(self, metrics: Mapping[str, float]) -> None:
        at = _now()
        self._queue.put(lambda store: store.summary(metrics, at))

    def champion(self, model_dir: Path, registered: str, tags: Mapping[str, str]) -> None:
        self._queue.put(lambda store: store.champion(model_dir, registered, tags))

    # -- the thread -------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        while (task := self._queue.get()) is not None and self._done(task):
            self._queue.task_done()
            self.cpu_s = time.thread_time()
        if task is None:
            self._queue.task_done()

    def _done(self, task: Task) -> bool:
        """Try until the store takes the task, or, opened anew, refuses it again. False when patience is at its end."""
        refused, last_heard = False, time.monotonic()
        for pause in itertools.chain((1.0, 2.0, 4.0, 8.0), itertools.repeat(15.0)):
            try:
                self._store = self._store or self._opened()
            except Exception as error:  # it is away
                log.warning("MLflow: %s", one_line(error))
                refused = False
                if self._closing.wait(pause):
                    if time.monotonic() > max(last_heard, self._closed_at) + self._patience:
                        return False
                    time.sleep(1.0)
                continue
            try:
                task(self._store)
                return True
            except Exception as error:
                log.warning("MLflow: %s", one_line(error))
                self._store = None
                if refused:
                    self.problems.append(one_line(error))
                    return True
                refused = True
        raise AssertionError("pauses never end")

    def _opened(self) -> Store:
        from bothways.edges.mlflow_store import Store

        store = Store(self.uri, tags=self._tags, **self._where)  # type: ignore[arg-type]
        if self._data is not None:
            store.data(*self._data)
        return store


def _apply(store: Store, event: Event) -> None:
    """Write an event of the hub. The event's own time makes it the same write whenever it is repeated."""
    at = int(event.at * 1000)
    if event.job is not None:
        store.begin(event.trial_id, event.trial_id, event.job.experiment, event.job.knobs, event.job.arm)
    elif event.report is not None:
        store.report(event.trial_id, event.report.step, event.report.metrics, at)
    elif event.outcome is not None:
        ended = event.outcome
        store.end(event.trial_id, ended.status, ended.test, ended.model_dir, ended.error, at)


def _now() -> int:
    return int(time.time() * 1000)
