"""A real MLflow server goes away and comes back: nothing is lost, nothing is doubled, nobody waits for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bothways.config import Pipeline
from bothways.edges.hub import Event, Job, Outcome
from bothways.results import Report
from tests import tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow]  # `ray`: the record imports it; no cluster is started

TRIALS = ("000-control", "001-rdrop", "002-adversarial")


def story(folder: Path) -> list[Event]:
    """Three trials, three reports each; the first two with a model."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "weights.safetensors").write_bytes(b"0" * 1000)
    happened = []
    for number, name in enumerate(TRIALS):
        began = 1.8e9 + 100 * number
        spec = {"seed": number, "optim": {"lr": 1e-4}}
        job = Job(trial_id=name, experiment=spec, directory="", knobs={"optim.lr": 1e-4})
        happened.append(Event(kind="begin", at=began, trial_id=name, job=job))
        for step in (10, 20, 30):
            report = Report(step=step, steps=30, metrics={"selection/accuracy": step / 100}, seconds=float(step))
            happened.append(Event(kind="report", at=began + step, trial_id=name, report=report))
        saved = str(model) if number < 2 else ""
        ended = Outcome(trial_id=name, status="finished" if saved else "stopped", model_dir=saved)
        happened.append(Event(kind="end", at=began + 31, trial_id=name, outcome=ended))
    return happened


def tracker(folder: Path, uri: str) -> Any:
    from bothways.edges.mlflow_tracking import MlflowTracker

    data = {"source": "made in the test"}
    run = {"storage": str(folder / "runs"), "tracking_uri": uri}
    return MlflowTracker(Pipeline(name="tiny", experiment={"data": data}, run=run), folder, tiny.dataset(), "one-sweep")


def kept(uri: str) -> dict[str, Any]:
    """What the store has of every trial, down to the time of each value."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "tiny"]
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment]):
        name, run_id = run.data.tags["bothways.trial"], run.info.run_id
        assert name not in found, f"{name} has two runs"
        history = [client.get_metric_history(run_id, metric) for metric in sorted(run.data.metrics)]
        values = [(m.key, m.step, m.value, m.timestamp) for metrics in history for m in metrics]
        models = [m for m in client.search_logged_models([experiment]) if m.source_run_id == run_id]
        found[name] = (run.info.status, run.data.params, values, len(models))
    return found


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server over a sqlite file in `folder`; ended by its own process group."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "a"),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    try:
        until = time.monotonic() + 120
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < until, "the server did not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def environment_stays() -> Iterator[None]:
    """One sweep's store is not the default of the next: MLflow would leave its address in the environment."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")
    before = {name: os.environ.get(name) for name in names}
    yield
    assert {name: os.environ.get(name) for name in names} == before


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with tracker(folder, uri) as whole:
        for event in story(folder):
            whole(event)
    assert whole.problems == []
    found = kept(uri)
    assert {name: found[name][0] for name in TRIALS} == dict(
        zip(TRIALS, ["FINISHED", "FINISHED", "KILLED"], strict=True)
    )
    assert [found[name][3] for name in TRIALS] == [1, 1, 0]
    assert len(found[TRIALS[0]][2]) == 6
    return found


def test_a_store_whose_maker_is_killed_can_be_made_again(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    script = f"from bothways.edges.mlflow_store import _made_whole; _made_whole({uri!r})"
    with subprocess.Popen([sys.executable, "-c", script]) as maker:
        while not any(file.stat().st_size for file in tmp_path.glob(".making-*/mlflow.db")):
            assert maker.poll() is None, "the store was made before it could be killed"
            time.sleep(0.01)
        maker.kill()
    assert not (tmp_path / "mlflow.db").exists()
    with tracker(tmp_path, uri) as again:
        for event in story(tmp_path):
            again(event)
    assert again.problems == []
    assert set(TRIALS) < set(kept(uri))


def test_what_happens_while_the_server_is_away_is_written_when_it_is_back(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    port, happened = free_port(), story(tmp_path)
    with server(tmp_path / "server", port) as uri:
        broken = tracker(tmp_path, uri).__enter__()
        for event in happened[:3]:
            broken(event)
        until = time.monotonic() + 60
        while broken.waiting:
            assert time.monotonic() < until
            time.sleep(0.1)
    for event in happened[3:]:
        broken(event)  # nobody waits for MLflow: the server starts only below
    time.sleep(3)
    assert broken.waiting, "the server is away: this test would prove nothing"
    with server(tmp_path / "server", port) as uri:
        broken.__exit__(None, None, None)
        assert broken.problems == []
        assert kept(uri) == undisturbed


def test_what_was_never_written_is_made_up_for_from_the_record_once(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bothways.edges.record import Record, read

    monkeypatch.setattr("bothways.edges.mlflow_tracking.PATIENCE_S", 1.0)
    port, happened = free_port(), story(tmp_path)
    record = Record(tmp_path / "events.jsonl")
    with server(tmp_path / "server", port) as uri:
        broken = tracker(tmp_path, uri).__enter__()
        for event in happened[:7]:
            record(event)
            broken(event)
        until = time.monotonic() + 60
        while broken.waiting:
            assert time.monotonic() < until
            time.sleep(0.1)
    for event in happened[7:]:
        record(event)
        broken(event)
    broken.__exit__(None, None, None)
    assert len(broken.problems) == 1
    assert "--resume" in broken.problems[0]
    monkeypatch.undo()
    with server(tmp_path / "server", port) as uri:
        for _ in range(2):
            with tracker(tmp_path, uri) as again:
                again.replay(read(tmp_path / "events.jsonl"))
            assert again.problems == []
            assert kept(uri) == undisturbed
