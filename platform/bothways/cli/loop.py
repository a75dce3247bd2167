"""`bothways loop`: stages that start from each other, until what they find says that it is enough."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def loop(
    file: Annotated[Path, typer.Argument(help="A file of stages, such as pipelines/closed_loop.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="run.KEY=value, such as run.storage=elsewhere.")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Trainings on Ray workers instead of here.")] = False,
) -> None:
    """Run a loop, or go on with it: a stage that is done, and starts from what it started from, is not run again.

    Where somebody has to label rows it stops and says which file to fill in. To begin anew, give another run.storage.
    """
    from bothways.loop import load_loop

    loaded = load_loop(file, overrides or [])
    from bothways.cli.tables import Format, show
    from bothways.cli.tune import interruptible, program, quiet_ray

    quiet_ray()
    from bothways.edges.loop import directory_of, run
    from bothways.loop.results import Step, rows

    typer.echo(f"loop {loaded.name} in {directory_of(loaded)}")

    def say_step(step: Step) -> None:
        (row,) = rows([step])
        typer.echo(": ".join(filter(None, (f"{step.number:>3}  {step.stage}", row["result"], row["then"]))))

    again = shlex.join([*program(), "loop", str(file), *(overrides or []), *(["--ray"] if ray else [])])
    with interruptible(f"finished stages are kept. Go on with: {again}"):
        result = run(loaded, on_ray=ray, say=lambda line: typer.echo(f"     {line}"), on_step=say_step)
    show(rows(result.steps), Format.table)
    if result.waiting:
        typer.echo(f"waiting  {result.waiting}: {again}")
    typer.echo(f"files    {result.directory}")
    typer.echo(f"MLflow   {result.tracking_uri}")
    for problem in result.problems:
        typer.echo(f"problem: {problem}")
