"""MLflow: one parent run a sweep, one child run a trial, every finished trial's model, the best as `champion`.

There is one writer: the driver. Calls only queue; a thread of the tracker's own writes, so that neither training nor
the search ever waits for the store. Runs are found again by their tags: a resumed sweep continues them, and makes no
second of any.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bothways import __version__
from bothways.data import Dataset as LoadedData
from bothways.errors import UserError, one_line

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import mlflow.pyfunc
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

log = logging.getLogger(__name__)

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "text"), ColSpec("string", "pair", required=False)]),
    outputs=Schema([ColSpec("string", "label"), ColSpec("double", "probability")]),
)


def tracking_uri(storage: Path, configured: str | None = None) -> str:
    """The configured address, MLFLOW_TRACKING_URI, or a sqlite file in the run's storage."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(storage / 'mlflow.db').resolve()}"


def model_path(uri: str, tracking: str) -> Path:
    """The directory of a logged model's files, from `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `models:/ID`.

    Raises `UserError` when there is no such model.
    """
    mlflow.set_tracking_uri(tracking)
    try:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        return root / str(Model.load(str(root)).flavors["python_function"]["data"])
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UserError(f"no model {uri!r} in {tracking}: {one_line(error)}") from None


def flat(spec: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted path → text, for a mapping of mappings and lists."""
    found: dict[str, str] = {}
    for key, value in spec.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping | list):
            found |= flat({str(i): v for i, v in enumerate(value)}, f"{path}.")
        else:
            found[path] = str(value)
    return found


def git_tags(where: Path) -> dict[str, str]:
    """The commit checked out at `where` and whether files differ from it; empty outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {
            "mlflow.source.git.commit": git("rev-parse", "HEAD"),
            "mlflow.source.git.branch": git("rev-parse", "--abbrev-ref", "HEAD"),
            "git.dirty": str(bool(git("status", "--porcelain"))).lower(),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}


class MlflowTracker:
    """`contracts.Tracker` for one sweep. A context manager: leaving it writes what is queued and ends the parent."""

    def __init__(self, uri: str, *, name: str, sweep: str, artifacts: Path, tags: Mapping[str, str]) -> None:
        self.uri = uri
        self._name = name
        self._sweep = sweep
        self._artifacts = artifacts
        self._tags = {"bothways.sweep": sweep, "bothways.version": __version__, **tags}
        self._runs: dict[str, str] = {}
        self._steps: dict[str, int] = {}
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._status = "FINISHED"
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)

    def __enter__(self) -> MlflowTracker:
        self._thread.start()
        self._queue.put(self._open)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            self._status = "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        self._queue.put(self._close)
        self._queue.put(None)
        self._thread.join()

    # -- what the driver calls: nothing here waits ------------------------------------------------------------------

    def begin(self, trial_id: str, name: str, experiment: Mapping[str, Any], knobs: Mapping[str, Any]) -> None:
        """A trial starts. `knobs` (dotted path → value) is what the search chose; all of `experiment` is logged."""
        self._queue.put(lambda: self._begin(trial_id, name, experiment, knobs))

    def report(self, trial_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after `step` optimiser steps. A step that is already in the store is not logged again."""
        at = int(time.time() * 1000)
        self._queue.put(lambda: self._report(trial_id, step, metrics, at))

    def end(self, trial_id: str, status: str, model_dir: str = "", error: str = "") -> None:
        """A trial has ended as `finished`, `stopped` or `failed`; a finished one's model is logged."""
        self._queue.put(lambda: self._end(trial_id, status, model_dir, error))

    def data(self, name: str, dataset: LoadedData, source: str) -> None:
        """The data set of the sweep, with our digest and its rows by split."""
        self._queue.put(lambda: self._data(name, dataset, source))

    def artifact(self, path: str, text: str, trial_id: str = "") -> None:
        """A text file of the sweep, or of one trial."""
        self._queue.put(lambda: self._client.log_text(self._runs[trial_id], text, path))

    def summary(self, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None) -> None:
        """Metrics and tags of the sweep itself."""
        self._queue.put(lambda: self._log(self._runs[""], metrics, 0, int(time.time() * 1000), tags or {}))

    def champion(self, model_dir: Path, registered: str, tags: Mapping[str, str]) -> None:
        """Register a self-contained model as a new version of `registered` and move the alias `champion` to it."""
        self._queue.put(lambda: self._champion(model_dir, registered, tags))

    # -- the writing thread -----------------------------------------------------------------------------------------

    def _write(self) -> None:
        while (task := self._queue.get()) is not None:
            try:
                task()
            except Exception as error:
                log.warning("MLflow: %s", one_line(error))
                self.problems.append(one_line(error))

    def _open(self) -> None:
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"mlflow\..*")
        mlflow.set_tracking_uri(self.uri)
        self._client = mlflow.MlflowClient(self.uri)
        found = self._client.get_experiment_by_name(self._name)
        if found is None:
            local = None if self.uri.startswith("http") else self._artifacts.resolve().as_uri()
            self._experiment = self._client.create_experiment(self._name, artifact_location=local)
        else:
            self._experiment = found.experiment_id
        mlflow.set_experiment(experiment_id=self._experiment)  # where logged models go
        self._runs[""] = self._find("") or self._create(self._sweep, self._tags)
        self._client.update_run(self._runs[""], status="RUNNING")

    def _find(self, trial_id: str) -> str | None:
        """The run of a trial (or of the sweep: '') that an interrupted process of this sweep has left."""
        wanted = f"tags.`bothways.sweep` = '{self._sweep}' and tags.`bothways.trial` = '{trial_id or 'sweep'}'"
        runs = self._client.search_runs([self._experiment], wanted, max_results=1)
        return runs[0].info.run_id if runs else None

    def _create(self, name: str, tags: Mapping[str, str], trial_id: str = "") -> str:
        run = self._client.create_run(
            self._experiment, run_name=name, tags={**tags, "bothways.trial": trial_id or "sweep"}
        )
        return str(run.info.run_id)

    def _begin(self, trial_id: str, name: str, experiment: Mapping[str, Any], knobs: Mapping[str, Any]) -> None:
        found = self._find(trial_id)
        if found:
            self._steps[trial_id] = int(self._client.get_run(found).data.metrics.get("step", -1))
            self._client.update_run(found, status="RUNNING")
            self._runs[trial_id] = found
            return
        tags = {"mlflow.parentRunId": self._runs[""], **self._tags}
        self._runs[trial_id] = self._create(name, tags, trial_id)
        params = flat(experiment) | {path: str(value) for path, value in knobs.items()}
        self._client.log_batch(self._runs[trial_id], params=[Param(k, v[:6000]) for k, v in params.items()])

    def _report(self, trial_id: str, step: int, metrics: Mapping[str, float], at: int) -> None:
        if step <= self._steps.get(trial_id, -1):
            return
        self._steps[trial_id] = step
        self._log(self._runs[trial_id], {**metrics, "step": float(step)}, step, at, {})

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int, at: int, tags: Mapping[str, str]) -> None:
        self._client.log_batch(
            run_id,
            metrics=[Metric(key, value, at, step) for key, value in metrics.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def _end(self, trial_id: str, status: str, model_dir: str, error: str) -> None:
        if trial_id not in self._runs:  # it was stopped while it waited in the queue
            return
        run_id = self._runs[trial_id]
        if model_dir:
            self._log_model(run_id, Path(model_dir), name="model")
        if error:
            self._client.set_tag(run_id, "error", error)
        self._client.set_terminated(run_id, STATUS[status])

    def _data(self, name: str, dataset: LoadedData, source: str) -> None:
        rows = {split: getattr(dataset, split).num_rows for split in ("train", "selection", "test")}
        inputs = [
            DatasetInput(
                Dataset(
                    name=f"{name}-{split}",
                    digest=dataset.digest[:36],
                    source_type="local",
                    source=json.dumps({"uri": source}),
                    profile=json.dumps({"num_rows": count}),
                ),
                [InputTag("mlflow.data.context", split)],
            )
            for split, count in rows.items()
        ]
        self._client.log_inputs(self._runs[""], inputs)

    def _log_model(self, run_id: str, model_dir: Path, *, name: str) -> Any:
        return Model.log(
            None,
            mlflow.pyfunc,
            name=name,
            run_id=run_id,
            loader_module="bothways.edges.mlflow_model",
            data_path=str(model_dir),
            signature=SIGNATURE,
            pip_requirements=[f"bothways=={__version__}"],  # naming them spares MLflow's search, which needs a network
        )

    def _champion(self, model_dir: Path, registered: str, tags: Mapping[str, str]) -> None:
        logged = self._log_model(self._runs[""], model_dir, name="champion")
        with contextlib.suppress(mlflow.exceptions.MlflowException):  # it exists: a version is added
            self._client.create_registered_model(registered)
        version = self._client.create_model_version(
            registered, logged.model_uri, self._runs[""], dict(tags), model_id=logged.model_id
        )
        # The alias moves last and in one write: it never points at nothing.
        self._client.set_registered_model_alias(registered, "champion", version.version)

    def _close(self) -> None:
        for run_id in self._runs.values():
            if self._client.get_run(run_id).info.status == "RUNNING":
                self._client.set_terminated(run_id, self._status if run_id == self._runs[""] else "KILLED")


def children(uri: str, sweep: str) -> Iterable[Any]:
    """The child runs of a sweep, for whoever wants to read them back."""
    client = mlflow.MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"tags.`bothways.sweep` = '{sweep}' and tags.`bothways.trial` != 'sweep'"
    return list(client.search_runs(experiments, wanted, max_results=1000))
