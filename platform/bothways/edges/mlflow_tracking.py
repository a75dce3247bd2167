"""Tracking that nobody waits for: calls only queue, a thread of the tracker's own writes to MLflow.

There is one writer, the driver. MLflow itself is imported by that thread, while Ray is starting.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.config import Pipeline
from bothways.data import Dataset
from bothways.errors import one_line

if TYPE_CHECKING:
    from bothways.edges.mlflow_store import Store

log = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""How long the end of a run waits for a store that is slow, or away."""


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

    `identity`: of the sweep, the same when it is resumed, another for a sweep that has come to bear its name.
    `problems`: what could not be written, one line each.
    """

    def __init__(self, pipeline: Pipeline, directory: Path, dataset: Dataset, identity: str) -> None:
        storage = Path(pipeline.run.storage).resolve()
        storage.mkdir(parents=True, exist_ok=True)
        self.uri = tracking_uri(storage, pipeline.run.tracking_uri)
        self.problems: list[str] = []
        self._where = {"name": pipeline.name, "sweep": directory.name, "artifacts": storage / "mlartifacts"}
        self._tags = git_tags(Path(__file__).parent) | {"bothways.data": dataset.digest, "bothways.id": identity}
        self._store: Store | None = None
        self._queue: queue.Queue[Callable[[Store], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._queue.put(lambda store: store.data(pipeline.name, dataset, pipeline.experiment.data.source))

    def __enter__(self) -> MlflowTracker:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        self._queue.put(lambda store: store.close(status))
        self._queue.put(None)
        self._thread.join(timeout=PATIENCE_S)
        if self._thread.is_alive():
            self.problems.append(f"{self.uri} does not answer: {self._queue.qsize()} records were given up")

    def begin(self, trial_id: str, name: str, experiment: Mapping[str, Any], knobs: Mapping[str, Any]) -> None:
        self._queue.put(lambda store: store.begin(trial_id, name, experiment, knobs))

    def report(self, trial_id: str, step: int, metrics: Mapping[str, float]) -> None:
        at = int(time.time() * 1000)
        self._queue.put(lambda store: store.report(trial_id, step, metrics, at))

    def end(self, trial_id: str, status: str, test: Mapping[str, float], model_dir: str = "", error: str = "") -> None:
        self._queue.put(lambda store: store.end(trial_id, status, test, model_dir, error))

    def artifact(self, path: str, text: str) -> None:
        self._queue.put(lambda store: store.artifact(path, text))

    def summary(self, metrics: Mapping[str, float]) -> None:
        self._queue.put(lambda store: store.summary(metrics))

    def champion(self, model_dir: Path, registered: str, tags: Mapping[str, str]) -> None:
        self._queue.put(lambda store: store.champion(model_dir, registered, tags))

    def _write(self) -> None:
        while (task := self._queue.get()) is not None:
            try:
                task(self._opened())
            except Exception as error:
                log.warning("MLflow: %s", one_line(error))
                self.problems.append(one_line(error))

    def _opened(self) -> Store:
        if self._store is None:
            from bothways.edges.mlflow_store import Store

            self._store = Store(self.uri, tags=self._tags, **self._where)  # type: ignore[arg-type]
        return self._store
