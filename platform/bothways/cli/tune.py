"""`bothways tune`: the search of one pipeline file, watched live, ending in an honest table."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
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
    from bothways.cli.live import View, say
    from bothways.edges import sweep
    from bothways.report import markdown

    plan = sweep.plan(loaded, space_file(pipeline, loaded), resume=resume)
    search = plan.search
    total = search.trials + (search.finalists + 1) * search.finalist_seeds + 2 * search.confirm_seeds
    say(console, "sweep ", (plan.directory.name, "bold"), f" in {plan.directory}")
    again = shlex.join([*program(), "tune", str(pipeline), *(overrides or []), "--resume"])
    with (
        interruptible(f"everything so far is kept. Go on with: {again}"),
        View(plan.goals.metric, plan.goals.mode, total, console) as view,
    ):
        result = sweep.tune(plan, view, lambda note: say(console, f"note    {note}"))
    console.print(Markdown(markdown(result)))
    say(console, f"files   {result.directory}")
    say(console, f"MLflow  {result.tracking_uri}  (open it with: make ui)")
    champion, paired = f"models:/{loaded.name}@champion", loaded.experiment.data.pair is not None
    say(console, f"predict {asking(champion, '--tracking-uri', result.tracking_uri, paired=paired)}")
    for problem in result.problems:
        say(console, ("problem: ", "yellow"), problem)


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


def asking(model: str, *options: str, paired: bool) -> str:
    """The command that asks a model."""
    command = shlex.join([*program(), "predict", "--model", model, *options])
    return f"{command} 'a text'{paired * ' --pair another'}"


@contextlib.contextmanager
def interruptible(kept: str) -> Iterator[None]:
    """Let SIGTERM end what is within as Ctrl-C does. Either becomes a `UserInterruptError` that says what is `kept`.

    Which of them it was is noted apart: the exception need not arrive as it was raised, for libraries on its way raise
    one of their own.
    """
    heard = [int(signal.SIGINT)]

    def interrupt(number: int, frame: Any) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise UserInterruptError(f"interrupted; {kept}", heard[-1]) from None
