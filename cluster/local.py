"""A cluster of one machine: a Ray head and an MLflow server, both on loopback only; `make cluster-up` and friends.

    python cluster/local.py up | submit PIPELINE [OVERRIDE…] | follow ID | stop ID | down

Everything that belongs to it lies in `runs/cluster/`: the token (0600), the logs, MLflow's store, and `state.json`.
Its processes bear a mark in their environment, so that `down` ends them all and nothing else. Needs Linux's `/proc`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bothways.errors import ConflictError, UserError

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
MARK = "BOTHWAYS_CLUSTER"
START_TIMEOUT_S = 180.0
END_TIMEOUT_S = 20.0

Process = tuple[int, int]
"""(pid, start time in clock ticks): a pid alone may have been given to somebody else since."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What `up` leaves for `submit` and `down`. `mark` is the value of the environment variable `MARK`."""

    mark: str
    roots: tuple[Process, ...]
    jobs: str
    mlflow: str
    temp_dir: str

    @staticmethod
    def read(directory: Path) -> State | None:
        file = directory / "state.json"
        if not file.exists():
            return None
        plain = json.loads(file.read_text("utf-8"))
        return State(**plain | {"roots": tuple((pid, start) for pid, start in plain["roots"])})

    def write(self, directory: Path) -> None:
        draft = directory / "state.json.new"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")
        draft.replace(directory / "state.json")


def table() -> Iterator[tuple[Process, int]]:
    """Every living process of this machine, with its parent's pid."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if fields[0] not in "ZX":
                yield (int(entry.name), int(fields[19])), int(fields[1])


def is_marked(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended meanwhile, or is somebody else's
        return False


def processes(state: State) -> set[Process]:
    """The cluster's living processes: the roots, all they descend to, and orphans that still bear the mark."""
    living = dict(table())
    found = {one for one in living if one in state.roots or is_marked(one[0], state.mark)}
    while True:
        pids = {pid for pid, _ in found}
        children = {one for one, parent in living.items() if parent in pids} - found
        if not children:
            return found
        found |= children


def send(one: Process, number: signal.Signals) -> None:
    if one in dict(table()):
        os.kill(one[0], number)


def end(state: State) -> int:
    """End every process of the cluster, politely first. Returns how many there were; raises when one will not go."""
    victims = processes(state)
    count = len(victims)
    for root in state.roots:
        send(root, signal.SIGTERM)
    for patience, number in ((END_TIMEOUT_S, signal.SIGKILL), (5.0, None)):
        deadline = time.monotonic() + patience
        while (left := (victims | processes(state)) & set(dict(table()))) and time.monotonic() < deadline:
            time.sleep(0.2)
        if not left:
            return count
        for one in left if number else ():
            send(one, number)
    raise RuntimeError(f"these processes of the cluster do not end: {sorted(pid for pid, _ in left)}")


def answers(url: str, token: str = "") -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_port(wanted: int, option: str) -> int:
    """`wanted`, or a free port for 0. Raises `UserError` when something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise UserError(f"port {wanted} is taken: choose another, as in `make cluster-up {option}=0`") from error
        return int(probe.getsockname()[1])


def reason(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines() or ["no output"]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return f"{(errors or lines)[-1]} (all of it: {log})"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def up(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    if not Path("/proc/self/stat").exists():
        raise UserError("the local cluster needs Linux; elsewhere use cluster/Dockerfile")
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise UserError(f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}: no head is started without a token; unset it")
    old = State.read(directory)
    if old and processes(old):
        raise ConflictError(f"the cluster is already up (Ray {old.jobs}, MLflow {old.mlflow}): `make cluster-down`")
    jobs_port = free_port(options.port, "CLUSTER_PORT")
    mlflow_port = free_port(options.mlflow_port, "MLFLOW_PORT")

    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    token_file = directory / "token"
    token_file.unlink(missing_ok=True)
    token = secrets.token_hex(32)
    with os.fdopen(os.open(token_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(token)
    mark = secrets.token_hex(8)
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        MARK: mark,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for "one node": 127.0.0.1 stays 127.0.0.1
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its own task queue: four processes nobody here needs
        "SPT_NOENV": "1",  # Ray renames its processes and would wipe the mark
    }
    temp_dir = tempfile.mkdtemp(prefix="bothways-")  # short: Ray puts sockets in it, whose paths are limited
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--node-ip-address={HOST}"]
    ray += [f"--dashboard-host={HOST}", f"--dashboard-port={jobs_port}", f"--temp-dir={temp_dir}"]
    ray += [f"--{name}-port={free_port(0, '')}" for name in ("dashboard-agent-listen", "ray-client-server")]
    ray += ["--min-worker-port=0", "--max-worker-port=0"]  # any free ones, not Ray's fixed range
    ray += ["--port=0", "--disable-usage-stats", "--log-style=record"]
    ray += [f"--num-cpus={options.cpus}"] if options.cpus else []
    ray += [f"--object-store-memory={options.object_store_mb * 1024**2}"] if options.object_store_mb else []
    mlflow = [sys.executable, "-m", "mlflow", "server", f"--host={HOST}", f"--port={mlflow_port}", "--workers=1"]
    mlflow += [f"--backend-store-uri=sqlite:///{directory / 'mlflow.db'}"]
    mlflow += [f"--artifacts-destination={directory / 'mlartifacts'}"]
    mlflow += [f"--allowed-hosts={HOST}:{mlflow_port},localhost:{mlflow_port}"]

    children: list[subprocess.Popen[bytes]] = []
    state = State(
        mark=mark,
        roots=(),
        jobs=f"http://{HOST}:{jobs_port}",
        mlflow=f"http://{HOST}:{mlflow_port}",
        temp_dir=temp_dir,
    )
    logs = [directory / "ray.log", directory / "mlflow.log"]
    try:
        for command, log in zip((ray, mlflow), logs, strict=True):
            with log.open("wb") as out:
                child = subprocess.Popen(
                    command, cwd=directory, env=env, stdout=out, stderr=out, stdin=-3, start_new_session=True
                )
            children.append(child)
            ours = {child.pid for child in children}
            state = State(**asdict(state) | {"roots": tuple(one for one in dict(table()) if one[0] in ours)})
            state.write(directory)
        deadline = time.monotonic() + START_TIMEOUT_S
        for child, log, ready in (
            (children[0], logs[0], lambda: answers(f"{state.jobs}/api/jobs/", token)),
            (children[1], logs[1], lambda: answers(f"{state.mlflow}/health")),
        ):
            while not ready():
                if child.poll() is not None:
                    raise UserError(f"the cluster did not start: {reason(log)}")
                if time.monotonic() > deadline:
                    raise UserError(f"the cluster did not start in {START_TIMEOUT_S:.0f} s: {reason(log)}")
                time.sleep(0.3)
    except BaseException:
        clear(state, directory)
        raise
    say(f"Ray     {state.jobs}   (token: {token_file})")
    say(f"MLflow  {state.mlflow}")
    say("next    make submit · make cluster-down")
    return 0


def clear(state: State, directory: Path) -> int:
    """End the processes and take away what only they needed. MLflow's store and the logs stay."""
    count = end(state)
    shutil.rmtree(state.temp_dir, ignore_errors=True)
    (directory / "token").unlink(missing_ok=True)
    (directory / "state.json").unlink(missing_ok=True)
    return count


def running(directory: Path) -> State:
    state = State.read(directory)
    if state is None or not processes(state):
        raise UserError("no cluster is up: `make cluster-up`")
    return state


def down(options: argparse.Namespace) -> int:
    state = State.read(options.directory)
    if state is None:
        raise UserError("no cluster is up: nothing to end")
    say(f"ended {clear(state, options.directory)} processes; none left. MLflow's store stays in {options.directory}")
    return 0


def followed(options: argparse.Namespace, submission_id: str) -> int:
    from bothways.edges import ray_jobs

    client = ray_jobs.connect(running(options.directory).jobs, (options.directory / "token").read_text("utf-8"))

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    again = f"{Path(sys.executable)} {Path(__file__)}"
    try:
        code = ray_jobs.follow(client, submission_id, write)
    except KeyboardInterrupt:
        say(f"\nthe job runs on. Follow: {again} follow {submission_id}   Stop: {again} stop {submission_id}")
        return 130
    say(f"job {submission_id}: {'succeeded' if code == 0 else f'failed, exit code {code}'}")
    return code


def submit(options: argparse.Namespace) -> int:
    from bothways.edges import ray_jobs

    state = running(options.directory)
    token_file = options.directory / "token"
    # The job runs in a copy of the project that goes away with the cluster: what it leaves behind belongs in runs/.
    tune = ["python", "-m", "bothways", "tune", options.pipeline, f"run.storage={ROOT / 'runs'}", *options.overrides]
    name = Path(options.pipeline).stem
    submission_id = options.id or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    ray_jobs.submit(
        ray_jobs.connect(state.jobs, token_file.read_text("utf-8")),
        options.entrypoint or shlex.join(tune),
        submission_id=submission_id,
        working_dir=ROOT,
        env={
            "PYTHONPATH": "platform",
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_TRACKING_URI": state.mlflow,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token_file),
        },
    )
    say(f"job {submission_id}   MLflow {state.mlflow}")
    return followed(options, submission_id)


def stop(options: argparse.Namespace) -> int:
    from bothways.edges import ray_jobs

    state = running(options.directory)
    ray_jobs.stop(ray_jobs.connect(state.jobs, (options.directory / "token").read_text("utf-8")), options.id)
    say(f"job {options.id}: asked to stop")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="cluster/local.py", description="A Ray head and an MLflow server on loopback.")
    top.add_argument("--directory", type=Path, default=ROOT / "runs" / "cluster", help="where its files lie")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(does=does)
        return one

    start = command("up", up, "start the head and the server, wait until both answer")
    start.add_argument("--port", type=int, default=8265, help="job server and dashboard (0: any free one)")
    start.add_argument("--mlflow-port", type=int, default=5000, help="MLflow (0: any free one)")
    start.add_argument("--cpus", type=int, default=0, help="CPUs the head offers (0: all)")
    start.add_argument("--object-store-mb", type=int, default=0, help="object store (0: Ray's default)")
    send_off = command("submit", submit, "run a pipeline as a job and follow it")
    send_off.add_argument("pipeline")
    send_off.add_argument("overrides", nargs="*", help="key=value")
    send_off.add_argument("--id", default="", help="name of the job (default: the pipeline's name and the time)")
    send_off.add_argument("--entrypoint", default="", help="run this command line instead of `bothways tune`")
    command("follow", lambda o: followed(o, o.id), "follow a job's log").add_argument("id")
    command("stop", stop, "stop a job").add_argument("id")
    command("down", down, "end the head and the server, and only them")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.directory = options.directory.resolve()
    try:
        return int(options.does(options))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
