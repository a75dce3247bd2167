"""`bothways ui`: the MLflow pages over the local store."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from bothways.errors import UserError


def ui(
    storage: Annotated[Path, typer.Option(help="The `run.storage` of the pipelines.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 5000,
) -> None:
    """Serve the MLflow pages of the local store on 127.0.0.1 until Ctrl-C."""
    database = (storage / "mlflow.db").resolve()
    if not database.exists():
        raise UserError(f"{database} does not exist: run `make tune` first, or name another --storage")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what an ended server leaves behind is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} cannot be had ({error.strerror}): choose another with --port") from error
    typer.echo(f"MLflow on http://127.0.0.1:{port}  (Ctrl-C ends it)")
    typer.echo("It opens with its pages for GenAI: choose `Model training`, at the upper left, to see the trials.")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # its own task queue: processes that nobody here needs
    arguments = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{database}"),
        *("--artifacts-destination", str(storage.resolve() / "mlartifacts")),
        *("--allowed-hosts", f"127.0.0.1:{port},localhost:{port}", "--workers", "1"),
    ]
    os.execv(sys.executable, arguments)
