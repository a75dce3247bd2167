"""`bothways train`: one experiment, no search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bothways.errors import UserError


def train(
    pipeline: Annotated[Path, typer.Argument(help="A file of pipelines/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as experiment.optim.lr=1e-4.")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="On Ray workers (run.workers of them) instead of here.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this pipeline's last training.")] = False,
) -> None:
    """Train the pipeline's experiment once, score its test rows, save and record its model."""
    from bothways.config.yaml_io import load_pipeline

    loaded = load_pipeline(pipeline, overrides or [])
    from bothways.cli.tune import asking, interruptible, quiet_ray

    quiet_ray()
    from bothways.edges.lease import sweep_directory
    from bothways.edges.single import train as run
    from bothways.results import Report

    directory = sweep_directory(Path(loaded.run.storage).resolve(), f"{loaded.name}-train", resume=resume)

    best = f"selection/{loaded.experiment.task.ranking[0]}"

    def say(report: Report) -> None:
        shown = "  ".join(f"{name} {report.metrics[name]:.4f}" for name in ("train/loss", best))
        typer.echo(f"{report.seconds:7.1f} s  step {report.step:>5}/{report.steps}  {shown}")

    with interruptible("go on from the last checkpoint with: bothways train --resume"):
        result = run(loaded, directory, on_ray=ray, on_report=say, tell=lambda note: typer.echo(f"note     {note}"))
    if result.status != "finished":
        raise UserError(f"training {result.status}: {result.error}")
    typer.echo("test     " + "  ".join(f"{name} {value:.4f}" for name, value in sorted(result.test.items())))
    typer.echo(f"model    {result.model_dir}")
    typer.echo(f"predict  {asking(result.model_dir, paired=loaded.experiment.data.pair is not None)}")
