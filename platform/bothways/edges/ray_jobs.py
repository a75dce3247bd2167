"""A pipeline as a job of a Ray cluster: submit, follow its log, stop.

The job server runs whatever it is sent, so every request carries the cluster's token (https://docs.ray.io, "Ray token
authentication"); a server that answers without one is the operator's mistake, not ours.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from bothways.errors import ConflictError, UserError

# What the workers need is the source; what is built, remembered or secret here stays here (`runs` holds the token).
LEFT_BEHIND = ("/.git", "/.venv", "/runs", "/build", "/dist", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")


def connect(address: str, token: str) -> JobSubmissionClient:
    """A client of the job server at `address` (`http://host:8265`).

    Raises `UserError` when nothing answers there or the token is refused.
    """
    for noisy in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(noisy).setLevel(logging.ERROR)  # they list every file left behind, four times
    try:
        return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})
    except ConnectionError as error:
        raise UserError(f"no Ray job server answers at {address}: start one with `make cluster-up`") from error
    except RuntimeError as error:
        raise UserError(f"the Ray job server at {address} refused: {str(error).splitlines()[0]}") from error


def submit(
    client: JobSubmissionClient, entrypoint: str, *, submission_id: str, working_dir: Path, env: Mapping[str, str]
) -> None:
    """Send `working_dir` (less `LEFT_BEHIND`) to the cluster and run `entrypoint`, a shell command line, in it.

    `env` is set for the driver and for every worker, and so is BOTHWAYS_GIT_COMMIT, since `.git` stays behind.
    Raises `ConflictError` when the cluster knows `submission_id`.
    """
    if any(job.submission_id == submission_id for job in client.list_jobs()):
        raise ConflictError(f"the cluster already has a job {submission_id!r}: follow it, or give another id")
    client.submit_job(
        entrypoint=entrypoint,
        submission_id=submission_id,
        runtime_env={
            "working_dir": str(working_dir),
            "excludes": list(LEFT_BEHIND),
            "env_vars": {**commit(working_dir), **env},
        },
    )


def commit(directory: Path) -> dict[str, str]:
    """BOTHWAYS_GIT_COMMIT, the commit checked out in `directory`; empty where it is no checkout."""
    if not (directory / ".git").exists() or not shutil.which("git"):
        return {}
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=directory, capture_output=True, text=True)
    return {"BOTHWAYS_GIT_COMMIT": asked.stdout.strip()} if asked.returncode == 0 else {}


def follow(client: JobSubmissionClient, submission_id: str, write: Callable[[str], object]) -> int:
    """Pass the job's log to `write` as it grows, until the job ends. Returns its exit code: 0 only if it succeeded.

    A broken connection is taken up again where it broke. Interrupting (Ctrl-C) leaves the job running.
    """
    written = 0

    async def tail() -> None:
        nonlocal written
        position = 0  # the server always tells the log from its beginning
        async for chunk in client.tail_job_logs(submission_id):
            new = chunk[max(0, written - position) :]
            position += len(chunk)
            if new:
                write(new)
                written += len(new)

    while not (status := client.get_job_status(submission_id)).is_terminal():
        try:
            asyncio.run(tail())
        except RuntimeError:  # the websocket broke
            time.sleep(1.0)
        time.sleep(0.2)
    write(client.get_job_logs(submission_id)[written:])
    if status == JobStatus.SUCCEEDED:
        return 0
    info = client.get_job_info(submission_id)
    if info.driver_exit_code is None:  # the driver never ran: the log cannot say why
        write(f"{info.message}\n")
    return info.driver_exit_code or 1


def stop(client: JobSubmissionClient, submission_id: str) -> None:
    """Ask the job to end. Raises `UserError` when the cluster does not know it or it has ended."""
    if not any(job.submission_id == submission_id for job in client.list_jobs()):
        raise UserError(f"the cluster has no job {submission_id!r}")
    if not client.stop_job(submission_id):
        raise UserError(f"job {submission_id!r} has already ended")
