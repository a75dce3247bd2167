"""`bothways compare`: input side off and on x output side off and on, with what each gives and both together."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown


def compare(
    pipeline: Annotated[Path, typer.Argument(help="A file of pipelines/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as experiment.optim.lr=1e-4.")] = None,
    experiment: Annotated[
        Path | None, typer.Option(help="Compare this experiment instead of the pipeline's: a sweep's best.yaml.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fresh seeds with which each arm is trained.")] = 5,
    curve: Annotated[
        bool, typer.Option("--curve/--no-curve", help="Also train on more rows: what is an arm worth in labels?")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the pipeline's last, interrupted comparison.")
    ] = False,
) -> None:
    """Train the experiment, each of its sides alone, neither, and plain copies: gains, synergy, intervals."""
    from bothways.config.yaml_io import load_pipeline

    loaded = load_pipeline(pipeline, overrides or [], experiment)
    from bothways.comparison import arms

    arms(loaded.experiment)  # refused before Ray and MLflow are imported, which takes seconds
    from bothways.cli.tune import interruptible, program, quiet_ray

    quiet_ray()
    from bothways.cli.live import View, say
    from bothways.edges import compare as edge

    task = loaded.experiment.task
    plan = edge.plan(loaded, seeds=seeds, curve=curve, resume=resume)
    console = Console()
    say(console, (plan.directory.name, "bold"), f" in {plan.directory}")
    for note in plan.dataset.notes:
        say(console, f"note    {note}")
    points = [*plan.arms, *(f"none with {rows:,} rows" for rows in plan.larger)]
    steps = loaded.experiment.optim.steps
    console.print(
        f"{plan.trainings} trainings of {steps} steps: {', '.join(points)}; {seeds} seeds each", highlight=False
    )
    file = ["--experiment", str(experiment)] if experiment else []
    options = [*file, "--seeds", str(seeds), *([] if curve else ["--no-curve"]), "--resume"]
    again = shlex.join([*program(), "compare", str(pipeline), *(overrides or []), *options])
    with (
        interruptible(f"everything so far is kept. Go on with: {again}"),
        View(f"selection/{task.ranking[0]}", task.directions[task.ranking[0]], plan.trainings, console) as view,
    ):
        proof = edge.compare(plan, view)
    console.print(Markdown(proof.text))
    say(console, f"files   {proof.directory}")
    say(console, f"MLflow  {proof.tracking_uri}  (open it with: make ui)")
    for problem in proof.problems:
        say(console, ("problem: ", "yellow"), problem)
