"""`make cluster-up`, `submit`, `cluster-down`: one head with a token on loopback, and nothing of it left afterwards."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def local(directory: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`python cluster/local.py …` over its own directory."""
    command = [sys.executable, str(ROOT / "cluster" / "local.py"), "--directory", str(directory), *arguments]
    # A cycle takes about 40 s on two busy cores; a hang must not eat the whole run.
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=240)


def refused(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert words in done.stderr


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`cluster/local.py` as a module of its own."""
    spec = importlib.util.spec_from_file_location("cluster_local", ROOT / "cluster" / "local.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", [["submit", "pipelines/sentiment.yaml"], ["down"], ["stop", "x"], ["follow", "x"]])
def test_without_a_cluster_there_is_one_clear_line(tmp_path: Path, command: list[str]) -> None:
    refused(local(tmp_path, *command), 2, "no cluster is up")


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refused(local(tmp_path, "up", "--port", port), 2, f"port {port} is taken")
    assert list(tmp_path.iterdir()) == []


def test_a_head_without_a_token_is_never_started(tmp_path: Path) -> None:
    refused(local(tmp_path, "up", "--port", "0", RAY_AUTH_MODE="disabled"), 2, "no head is started without a token")


def test_a_cluster_that_died_is_not_mistaken_for_one_that_is_up(tmp_path: Path) -> None:
    gone = {"mark": "m", "roots": [[2**22 - 1, 1]], "jobs": "j", "mlflow": "m", "temp_dir": str(tmp_path / "t")}
    (tmp_path / "state.json").write_text(json.dumps(gone))
    refused(local(tmp_path, "submit", "x.yaml"), 2, "no cluster is up")
    assert "ended 0 processes" in local(tmp_path, "down").stdout


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mark": "m"}', '{"roots": [1]}'])
def test_a_damaged_state_file_is_one_clear_line(
    script: Any, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state.json").write_text(content)
    for command in (["up", "--port=0", "--mlflow-port=0"], ["down"], ["submit", "x.yaml"], ["stop", "x"]):
        assert script.main(["--directory", str(tmp_path), *command]) == 2
        told = capsys.readouterr().err
        assert (told.count("\n"), "state.json is damaged" in told) == (1, True), told


def test_a_process_that_just_ended_is_no_error(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    gone = (child.pid, 1)
    monkeypatch.setattr(script, "table", lambda: iter([(gone, 1)]))  # it was there when we looked
    script.send(gone, signal.SIGTERM)


# -- the real thing ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("cluster")
    started = local(directory, "up", "--port=0", "--mlflow-port=0", "--cpus=1", "--object-store-mb=100")
    assert started.returncode == 0, started.stderr
    yield directory
    if (directory / "state.json").exists():
        local(directory, "down")


def state(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "state.json").read_text()))


def marked(mark: str) -> list[int]:
    """The pids of all processes of this machine that were started under the cluster's mark."""
    wanted = f"BOTHWAYS_CLUSTER={mark}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [int(environ.parent.name)] if wanted in environ.read_bytes() else []
        except OSError:
            continue
    return found


def status(url: str, token: str = "", body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.ray
def test_a_request_without_the_token_is_refused(cluster: Path) -> None:
    jobs = f"{state(cluster)['jobs']}/api/jobs/"
    assert status(jobs) == 401
    assert status(jobs, body=b'{"entrypoint": "id"}') == 401
    assert status(jobs, "0" * 64) == 403
    assert status(jobs, (cluster / "token").read_text()) == 200


@pytest.mark.ray
def test_the_token_is_for_its_owner_only(cluster: Path) -> None:
    assert (cluster / "token").stat().st_mode & 0o777 == 0o600
    assert cluster.stat().st_mode & 0o777 == 0o700


@pytest.mark.ray
def test_every_port_is_on_loopback(cluster: Path) -> None:
    inodes = set()
    for pid in marked(state(cluster)["mark"]):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            name = str(link.readlink()) if link.is_symlink() else ""
            inodes |= {name[8:-1]} if name.startswith("socket:[") else set()
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    listening = [line[1].split(":")[0] for line in lines if line[3] == "0A" and line[9] in inodes]
    assert len(listening) > 5
    assert set(listening) <= {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}


@pytest.mark.ray
def test_a_second_cluster_is_refused_and_the_first_lives_on(cluster: Path) -> None:
    before = state(cluster)
    refused(local(cluster, "up", "--port=0", "--mlflow-port=0"), 3, "already up")
    assert state(cluster) == before
    assert status(f"{before['mlflow']}/health") == 200


@pytest.mark.ray
def test_a_job_finds_the_project_and_the_server_on_driver_and_worker(cluster: Path) -> None:
    code = (
        "import bothways, os, ray; ray.init(log_to_driver=False); "
        "look = ray.remote(lambda: (__import__('bothways').__file__, os.environ['MLFLOW_TRACKING_URI'])); "
        "print('driver', bothways.__file__); print('worker', *ray.get(look.remote())); "
        "print('commit', os.environ.get('BOTHWAYS_GIT_COMMIT', ''))"
    )
    done = local(cluster, "submit", "--id", "look", "--entrypoint", f'python -c "{code}"', "any.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = {"driver", "worker", "commit"}
    told = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line[:6] in kinds}
    assert told["driver"][0] == told["worker"][0]
    assert "working_dir" in told["driver"][0], "the job must use the project it was sent, not one installed here"
    assert told["worker"][1] == state(cluster)["mlflow"]
    if (ROOT / ".git").exists():
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert told["commit"] == [asked.stdout.strip()]
    refused(local(cluster, "submit", "--id", "look", "--entrypoint", "true", "any.yaml"), 3, "already has a job")


@pytest.mark.ray
def test_a_job_that_fails_gives_its_exit_code(cluster: Path) -> None:
    done = local(cluster, "submit", "--entrypoint", "echo so far; exit 7", "any.yaml")
    assert done.returncode == 7
    assert "so far" in done.stdout


@pytest.mark.ray
def test_ctrl_c_leaves_the_job_running_and_says_how_to_stop_it(cluster: Path) -> None:
    command = [sys.executable, str(ROOT / "cluster" / "local.py"), "--directory", str(cluster), "submit"]
    with subprocess.Popen(
        [*command, "--id", "endless", "--entrypoint", "echo started; sleep 600", "any.yaml"],
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout
        assert any(line.startswith("started") for line in following.stdout), "the log ended before the job began"
        following.send_signal(signal.SIGINT)
        rest = following.stdout.read()
        assert following.wait(timeout=30) == 130
    assert "the job runs on" in rest and "stop endless" in rest
    assert local(cluster, "stop", "endless").returncode == 0
    ended = local(cluster, "follow", "endless")
    assert ended.returncode == 1
    assert "stopped" in ended.stdout
    refused(local(cluster, "stop", "endless"), 2, "already ended")
    refused(local(cluster, "stop", "unknown"), 2, "no job 'unknown'")


@pytest.mark.ray
def test_down_ends_everything_even_what_a_job_left_behind(cluster: Path) -> None:
    mark = state(cluster)["mark"]
    # A process in a session of its own, whose parent is gone: neither the process tree nor a process group leads to it.
    left = local(cluster, "submit", "--entrypoint", "setsid sleep 997 >/dev/null 2>&1 & sleep 1", "any.yaml")
    assert left.returncode == 0, left.stderr
    assert b"sleep\x00997\x00" in [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in marked(mark)]
    with subprocess.Popen(["sleep", "998"]) as bystander:
        done = local(cluster, "down")
        assert done.returncode == 0, done.stderr
        assert bystander.poll() is None
        bystander.kill()
    deadline = time.monotonic() + 5
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marked(mark) == []
    assert not (cluster / "token").exists()
    refused(local(cluster, "down"), 2, "no cluster is up")


# -- the files for other clusters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["ray-cluster.yaml", "rayjob.yaml"])
def test_a_cluster_file_asks_for_a_token(file: str) -> None:
    assert (
        "RAY_AUTH_MODE" in (ROOT / "cluster" / file).read_text()
        or "authOptions" in (ROOT / "cluster" / file).read_text()
    )


def test_the_ray_up_file_is_what_ray_expects() -> None:
    import jsonschema

    found = importlib.util.find_spec("ray")  # found, not imported
    assert found is not None and found.origin is not None
    schema = json.loads((Path(found.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    config = yaml.safe_load((ROOT / "cluster" / "ray-cluster.yaml").read_text())
    jsonschema.validate(config, schema)
    started = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert len(started) == 1 and "--head" in started[0]
    assert all(
        "RAY_AUTH_MODE=token" in line
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in config[key]
        if "ray start" in line
    )


def test_the_rayjob_is_guarded_bounded_and_leaves_the_head_free() -> None:
    job = yaml.safe_load((ROOT / "cluster" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] >= 1
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for container in (one for group in groups for one in group["template"]["spec"]["containers"]):
        assert container["resources"]["requests"] == container["resources"]["limits"]
