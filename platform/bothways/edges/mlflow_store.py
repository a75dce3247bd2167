"""MLflow's store: runs, metrics, models, the champion. Plain calls that wait; `mlflow_tracking` has a thread for it.

Runs are found again by their tags: a resumed sweep continues them, and makes no second of any.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bothways import __version__
from bothways.data import Dataset
from bothways.errors import UserError, one_line

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the tracker tries again by itself
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
import mlflow.pyfunc
from mlflow import entities
from mlflow.models import Model, ModelSignature
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.types import ColSpec, Schema

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}
MODEL = "bothways.model"
"""The tag of a run whose model is in the store."""
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "text"), ColSpec("string", "pair", required=False)]),
    outputs=Schema([ColSpec("string", "label"), ColSpec("double", "probability")]),
)


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """MLflow writes what it is set to into the environment, where the next sweep would take it for the user's wish."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def model_path(uri: str, tracking: str) -> Path:
    """The directory of a logged model's files, from `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `models:/ID`.

    Raises `UserError` when there is no such model.
    """
    with _environment_kept():
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


def _made_whole(uri: str) -> None:
    """Make a SQLite store that is not there yet beside its place, and move it there when it is complete.

    MLflow makes a store table by table, and can neither open nor mend one whose maker was killed.
    """
    place = Path(uri.removeprefix("sqlite:///")).resolve()
    if not uri.startswith("sqlite:///") or place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=place.parent) as scratch:
        made = Path(scratch) / place.name
        SqlAlchemyStore(f"sqlite:///{made}", place.parent.as_uri()).engine.dispose()
        try:
            place.hardlink_to(made)
        except FileExistsError:  # another process was first: its store stays
            pass
        except OSError:  # a file system without hard links
            made.replace(place)


class Store:
    """The runs of one sweep: a parent, and a child for each trial. Opening it finds or makes the parent."""

    def __init__(self, uri: str, *, name: str, sweep: str, artifacts: Path, tags: Mapping[str, str]) -> None:
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"mlflow\..*")
        with _environment_kept():
            mlflow.set_tracking_uri(uri)
        _made_whole(uri)
        self._client = mlflow.MlflowClient(uri)
        self._tags = {"bothways.sweep": sweep, "bothways.version": __version__, **tags}
        self._steps: dict[str, int] = {}
        found = self._client.get_experiment_by_name(name)
        if found is None:
            local = None if uri.startswith("http") else artifacts.resolve().as_uri()
            self._experiment = self._client.create_experiment(name, artifact_location=local)
        else:
            self._experiment = found.experiment_id
        with _environment_kept():
            mlflow.set_experiment(experiment_id=self._experiment)  # where logged models go
        self._runs = self._known()
        if "sweep" not in self._runs:
            self._runs["sweep"] = self._create(sweep, self._tags, "sweep")
        self._parent = self._runs["sweep"].info.run_id
        self._client.update_run(self._parent, status="RUNNING")

    def _known(self) -> dict[str, entities.Run]:
        """The runs that this sweep has in the store, by trial; its own is `sweep`."""
        found: dict[str, entities.Run] = {}
        token = None
        while token != "":
            page = self._client.search_runs(
                [self._experiment], f"tags.`bothways.id` = '{self._tags['bothways.id']}'", page_token=token
            )
            found |= {run.data.tags["bothways.trial"]: run for run in page}
            token = page.token or ""
        return found

    def _create(self, name: str, tags: Mapping[str, str], trial_id: str) -> entities.Run:
        return self._client.create_run(self._experiment, run_name=name, tags={**tags, "bothways.trial": trial_id})

    def has(self, trial_id: str, step: int, status: str) -> bool:
        """Whether the store has the trial up to `step`, and its end as `status` (a trial's, or '')."""
        run = self._runs.get(trial_id)
        return run is not None and run.info.status == STATUS.get(status) and self._step(trial_id) >= step

    def _step(self, trial_id: str) -> int:
        known = self._runs[trial_id].data.metrics.get("step", -1)
        return self._steps.setdefault(trial_id, int(known))

    def begin(
        self, trial_id: str, name: str, experiment: Mapping[str, Any], knobs: Mapping[str, Any], arm: str = ""
    ) -> None:
        """A trial starts, or goes on. `knobs` (dotted path → value) is what the search chose; all is logged.
        `arm`: what it is compared as, if it is (a tag)."""
        known = self._runs.get(trial_id)
        tags = {"mlflow.parentRunId": self._parent, **self._tags} | ({"bothways.arm": arm} if arm else {})
        run = known or self._create(name, tags, trial_id)
        self._runs[trial_id] = run
        if known:
            self._client.update_run(run.info.run_id, status="RUNNING")
        if not run.data.params:
            params = flat(experiment) | {path: str(value) for path, value in knobs.items()}
            self._client.log_batch(run.info.run_id, params=[entities.Param(k, v[:6000]) for k, v in params.items()])

    def report(self, trial_id: str, step: int, metrics: Mapping[str, float], at: int) -> None:
        """Metrics after `step` steps, seen at `at` (Unix ms). A step that the store has is not logged again."""
        if step <= self._step(trial_id):
            return
        self._log(self._id(trial_id), {**metrics, "step": float(step)}, step, at)
        self._steps[trial_id] = step

    def _id(self, trial_id: str) -> str:
        return str(self._runs[trial_id].info.run_id)

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int, at: int) -> None:
        logged = [entities.Metric(key, value, at, step) for key, value in metrics.items()]
        self._client.log_batch(run_id, metrics=logged)

    def end(self, trial_id: str, status: str, test: Mapping[str, float], model_dir: str, error: str, at: int) -> None:
        """A trial has ended as `finished`, `stopped`, `interrupted` or `failed`; a finished one's model is logged.

        `at`: when (Unix ms).
        """
        if trial_id not in self._runs:  # it was stopped while it waited in the queue
            return
        run_id = self._id(trial_id)
        if test:
            self._log(run_id, {f"test/{name}": value for name, value in test.items()}, self._step(trial_id), at)
        if model_dir and MODEL not in self._runs[trial_id].data.tags:
            logged = self._log_model(run_id, Path(model_dir), name="model")
            self._client.set_tag(run_id, MODEL, logged.model_id)
        if error:
            self._client.set_tag(run_id, "error", error)
        self._client.set_terminated(run_id, STATUS[status], at)

    def data(self, name: str, dataset: Dataset, source: str) -> None:
        """The data set of the sweep, with our digest and its rows by split."""
        rows = {split: getattr(dataset, split).num_rows for split in ("train", "selection", "test")}
        inputs = [
            entities.DatasetInput(
                entities.Dataset(
                    name=f"{name}-{split}",
                    digest=dataset.digest[:36],
                    source_type="local",
                    source=json.dumps({"uri": source}),
                    profile=json.dumps({"num_rows": count}),
                ),
                [entities.InputTag("mlflow.data.context", split)],
            )
            for split, count in rows.items()
        ]
        self._client.log_inputs(self._parent, inputs)

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

    def artifact(self, path: str, text: str) -> None:
        """A text file of the sweep."""
        self._client.log_text(self._parent, text, path)

    def summary(self, metrics: Mapping[str, float], at: int) -> None:
        """Metrics of the sweep itself."""
        self._log(self._parent, metrics, 0, at)

    def champion(self, model_dir: Path, registered: str, tags: Mapping[str, str]) -> None:
        """Register a self-contained model as a new version of `registered` and move the alias `champion` to it."""
        logged = self._log_model(self._parent, model_dir, name="champion")
        with contextlib.suppress(mlflow.exceptions.MlflowException):  # it exists: a version is added
            self._client.create_registered_model(registered)
        version = self._client.create_model_version(
            registered, logged.model_uri, self._parent, dict(tags), model_id=logged.model_id
        )
        # The alias moves last and in one write: it never points at nothing.
        self._client.set_registered_model_alias(registered, "champion", version.version)

    def close(self, status: str) -> None:
        """End the parent with `status`, and any child that is still running as KILLED: no run is left open."""
        open_runs = f"tags.`bothways.id` = '{self._tags['bothways.id']}' and attributes.status = 'RUNNING'"
        self._client.set_terminated(self._parent, status)
        for run in self._client.search_runs([self._experiment], open_runs):
            self._client.set_terminated(run.info.run_id, "KILLED")
