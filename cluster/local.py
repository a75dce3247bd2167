"""A cluster of one machine: a Ray head and an MLflow server, both on loopback only; `make cluster-up` and friends.

    python cluster/local.py up | submit [--id ID] PIPELINE [OVERRIDE…] | follow ID | stop ID | down

Everything that belongs to it lies in `runs/cluster/`: the token (0600), the logs, MLflow's store, and `state.json`.
Its processes bear a mark in their environment, so that `down` ends them all and nothing else. Needs Linux's `/proc`.
"""

from __future__ import annotations

import argparse
import contextlib
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bothways.errors import ConflictError, UserError, one_line

if TYPE_CHECKING:  # importing Ray takes seconds: only the commands that talk to the job server do it
    from ray.job_submission import JobSubmissionClient

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
        try:
            plain = json.loads(file.read_text("utf-8"))
            return State(**plain | {"roots": tuple((pid, start) for pid, start in plain["roots"])})
        except (ValueError, TypeError, KeyError) as error:
            way_out = f"end what `grep -lz ^{MARK}= /proc/[0-9]*/environ` finds, then delete the file"
            raise UserError(f"{file} is damaged ({one_line(error)}): {way_out}") from error

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
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(one[0], number)


def left_after(state: State, victims: set[Process], seconds: float) -> set[Process]:
    """Those of `victims` (and of the cluster's newer processes) that still live after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := (victims | processes(state)) & set(dict(table()))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def end(state: State) -> int:
    """End every process of the cluster, politely first. Returns how many; raises when one will not go."""
    victims = processes(state)
    parents = dict(table())
    pids = {pid for pid, _ in victims}
    for one in victims:
        if parents.get(one) not in pids:  # the roots, which end their own children in order, and orphans
            send(one, signal.SIGTERM)
    stubborn = left_after(state, victims, END_TIMEOUT_S)
    for one in stubborn:
        send(one, signal.SIGKILL)
    if stubborn and (left := left_after(state, stubborn, 5.0)):
        raise UserError(f"even killed, these do not end; see `ps`, then try again: {sorted(pid for pid, _ in left)}")
    return len(victims)


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


def environment(mark: str, token_file: Path) -> dict[str, str]:
    """What the head, the server and all their descendants find in their environment."""
    return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        MARK: mark,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for "one node": 127.0.0.1 stays 127.0.0.1
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its own task queue: processes that nobody here needs
        "SPT_NOENV": "1",  # Ray renames its processes and would wipe the mark
    }


def ray_command(options: argparse.Namespace, port: int, temp_dir: str) -> list[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--node-ip-address={HOST}", f"--dashboard-host={HOST}", f"--dashboard-port={port}", "--port=0"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # any free ones, not Ray's fixed range
    command += [f"--{name}-port={free_port(0, '')}" for name in ("dashboard-agent-listen", "ray-client-server")]
    command += [f"--temp-dir={temp_dir}", "--log-style=record"]
    command += [f"--num-cpus={options.cpus}"] if options.cpus else []
    return command + ([f"--object-store-memory={options.object_store_mb << 20}"] if options.object_store_mb else [])


def mlflow_command(port: int, directory: Path) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", f"--host={HOST}", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{directory / 'mlflow.db'}"]
    command += [f"--artifacts-destination={directory / 'mlartifacts'}"]
    return [*command, f"--allowed-hosts={HOST}:{port},localhost:{port}"]


def write_token(file: Path) -> str:
    """A fresh token in a file that only its owner can read, from its first byte on."""
    file.unlink(missing_ok=True)
    token = secrets.token_hex(32)
    with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
        out.write(token)
    return token


def wait_for(url: str, token: str, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(url, token):
        if child.poll() is not None:
            raise UserError(f"the cluster did not start: {reason(log)}")
        if time.monotonic() > deadline:
            raise UserError(f"the cluster did not start in {START_TIMEOUT_S:.0f} s: {reason(log)}")
        time.sleep(0.3)


def up(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    if not Path("/proc/self/stat").exists():
        raise UserError("the local cluster needs Linux; elsewhere use cluster/Dockerfile")
    if (mode := os.environ.get("RAY_AUTH_MODE", "token")) != "token":
        raise UserError(f"RAY_AUTH_MODE={mode}: no head is started without a token; unset it")
    old = State.read(directory)
    if old and processes(old):
        raise ConflictError(f"the cluster is already up (Ray {old.jobs}, MLflow {old.mlflow}): `make cluster-down`")
    jobs_port = free_port(options.port, "CLUSTER_PORT")
    mlflow_port = free_port(options.mlflow_port, "MLFLOW_PORT")

    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    token_file = directory / "token"
    token = write_token(token_file)
    state = State(
        mark=secrets.token_hex(8),
        roots=(),
        jobs=f"http://{HOST}:{jobs_port}",
        mlflow=f"http://{HOST}:{mlflow_port}",
        temp_dir=tempfile.mkdtemp(prefix="bothways-"),  # short: Ray puts sockets in it, whose paths are limited
    )
    starts = (
        (ray_command(options, jobs_port, state.temp_dir), directory / "ray.log", f"{state.jobs}/api/jobs/"),
        (mlflow_command(mlflow_port, directory), directory / "mlflow.log", f"{state.mlflow}/health"),
    )
    children = []
    try:
        for command, log, _ in starts:
            with log.open("wb") as out:
                child = subprocess.Popen(
                    command,
                    cwd=directory,
                    env=environment(state.mark, token_file),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in this terminal is not for them
                )
            children.append(child)
            pids = {child.pid for child in children}
            state = replace(state, roots=tuple(one for one, _ in table() if one[0] in pids))
            state.write(directory)
        for child, (_, log, url) in zip(children, starts, strict=True):
            wait_for(url, token, child, log)
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
    say(f"ended {clear(state, options.directory)} processes; none left")
    say(f'what was run stays: make ui ARGS="--storage {options.directory}"')
    return 0


def connected(state: State, directory: Path) -> JobSubmissionClient:
    from bothways.edges import ray_jobs

    return ray_jobs.connect(state.jobs, (directory / "token").read_text("utf-8"))


def followed(client: JobSubmissionClient, submission_id: str) -> int:
    from bothways.edges import ray_jobs

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    again = f"{Path(sys.executable)} {Path(__file__)}"
    try:
        code = ray_jobs.follow(client, submission_id, write)
    except KeyboardInterrupt:
        say(f"\nthe job runs on. Follow: {again} follow {submission_id}   Stop: {again} stop {submission_id}")
        return 130
    say(f"job {submission_id}: {'succeeded' if code == 0 else f'ended with exit code {code}'}")
    return code


def follow(options: argparse.Namespace) -> int:
    return followed(connected(running(options.directory), options.directory), options.id)


def submit(options: argparse.Namespace) -> int:
    state = running(options.directory)
    client = connected(state, options.directory)
    from bothways.edges import ray_jobs

    # The job runs in a copy of the project that goes away with the cluster: what it leaves behind belongs in runs/.
    tune = ["python", "-m", "bothways", "tune", options.pipeline, f"run.storage={ROOT / 'runs'}", *options.overrides]
    submission_id = options.id or f"{Path(options.pipeline).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    ray_jobs.submit(
        client,
        options.entrypoint or shlex.join(tune),
        submission_id=submission_id,
        working_dir=ROOT,
        env={
            "PYTHONPATH": "platform",
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_TRACKING_URI": state.mlflow,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines a run, in the middle of the log
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(options.directory / "token"),
        },
    )
    say(f"job {submission_id}   MLflow {state.mlflow}")
    return followed(client, submission_id)


def stop(options: argparse.Namespace) -> int:
    client = connected(running(options.directory), options.directory)
    from bothways.edges import ray_jobs

    ray_jobs.stop(client, options.id)
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
    send_off.add_argument("overrides", nargs=argparse.REMAINDER, help="key=value and options of `bothways tune`")
    send_off.add_argument("--id", default="", help="name of the job (default: the pipeline's name and the time)")
    send_off.add_argument("--entrypoint", default="", help="run this command line instead of `bothways tune`")
    command("follow", follow, "follow a job's log").add_argument("id")
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
