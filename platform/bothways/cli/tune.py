"""`bothways tune`: the search of one pipeline file, watched live, ending in an honest table."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from bothways.errors import UserInterruptError


def tune(
    pipeline: Annotated[Path, typer.Argument(help="A file of pipelines/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as search.trials=32.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the pipeline's last, interrupted sweep.")
    ] = False,
) -> None:
    """Search the pipeline's space, confirm the best with fresh seeds, register it as champion."""
    from bothways.config.yaml_io import load_pipeline, space_file

    loaded = load_pipeline(pipeline, overrides or [])
    console = Console()
    quiet_ray()
    # Ray, Optuna and MLflow take seconds to import: the file has been checked before that.
    from bothways.cli.live import View
    from bothways.edges import sweep
    from bothways.report import markdown

    plan = sweep.plan(loaded, space_file(pipeline, loaded), resume=resume)
    heard = hear_sigterm()
    search = plan.search
    total = search.trials + (search.finalists + 1) * search.finalist_seeds + 2 * search.confirm_seeds
    console.print(f"sweep [bold]{plan.directory.name}[/bold] in {plan.directory}", highlight=False, soft_wrap=True)
    try:
        with View(plan.goals.metric, plan.goals.mode, total, console) as view:
            result = sweep.tune(plan, view)
    except KeyboardInterrupt:
        again = shlex.join([*program(), "tune", str(pipeline), *(overrides or []), "--resume"])
        raise UserInterruptError(
            f"interrupted; everything so far is kept. Go on with: {again}",
            heard[-1] if heard else signal.SIGINT,
        ) from None
    console.print(Markdown(markdown(result)))
    console.print(f"files   {result.directory}", highlight=False, soft_wrap=True)
    console.print(f"MLflow  {result.tracking_uri}  (open it with: make ui)", highlight=False, soft_wrap=True)
    hint = shlex.join(
        [*program(), "predict", "--model", f"models:/{loaded.name}@champion", "--tracking-uri", result.tracking_uri]
    )
    console.print(f"predict {hint} 'a text'", highlight=False, soft_wrap=True)
    for problem in result.problems:
        console.print(f"[yellow]problem:[/yellow] {problem}", soft_wrap=True)


def quiet_ray() -> None:
    """Set before Ray is imported: no usage statistics, no banners, no progress bars in the middle of the table."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables
        "RAY_DEDUP_LOGS_SKIP_REGEX": "maximum expected startup concurrency",  # lanes ask for fractions of a CPU
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: the lanes end first
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # a sweep goes on from its own record; Tune's grows with every trial
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one more process for every lane
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # then the cluster is too small for that lane, for now
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def program() -> list[str]:
    """How to call bothways from the user's shell: by its name where that is on the path, else by this interpreter."""
    return ["bothways"] if shutil.which("bothways") else [os.path.relpath(sys.executable), "-m", "bothways"]


def hear_sigterm() -> list[int]:
    """Let SIGTERM end the program as Ctrl-C does. Returns a list that then holds its number: the exception need not
    arrive as it was raised, for libraries on its way raise one of their own."""
    heard: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    return heard
