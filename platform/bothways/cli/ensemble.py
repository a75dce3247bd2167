"""`bothways ensemble`: the models of a sweep made into one, by averaging weights or probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bothways.assets import files
from bothways.cli.tables import Format, show
from bothways.cli.tune import asking
from bothways.errors import UserError


class How(StrEnum):
    """As `ensembles.Method`."""

    greedy = "greedy"
    uniform = "uniform"
    top_k = "top-k"


def ensemble(
    run_dir: Annotated[Path, typer.Argument(help="A sweep's directory, such as runs/sentiment-001.")],
    out: Annotated[Path, typer.Option(help="The directory to write.")],
    method: Annotated[How, typer.Option(help="Average weights (greedy, uniform) or probabilities.")] = How.greedy,
    k: Annotated[int, typer.Option(min=1, help="How many of the best models are considered.")] = 5,
    trials: Annotated[
        str, typer.Option(help="Which trials; 'confirm-found-*' are one experiment with several seeds.")
    ] = "[0-9]*",
    metric: Annotated[str, typer.Option(help="Ranks them, on the selection rows; else the sweep's own.")] = "",
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """Make one model of a sweep's best ones. Selection rows decide; test rows are only reported."""
    found = {file.parents[1].name: file.parent for file in sorted(run_dir.glob(f"trials/{trials}/model/model.json"))}
    if not found:
        raise UserError(f"{run_dir}: no saved model in trials/{trials}/model")
    files.made(out.parent, "--out")
    metric = metric or _metric(run_dir)
    from bothways import data, models
    from bothways.ensembles import make

    about = models.read_about(next(iter(found.values())))
    task = about.experiment.task
    metric = metric or task.ranking[0]
    if metric not in task.directions:
        raise UserError(f"--metric {metric}: there are {', '.join(task.directions)}")
    made = make(found, load=data.load, method=method.value, k=k, metric=metric, out=out)
    told = made.selection if form is Format.json else dict.fromkeys((metric, *task.ranking))

    def scores(metrics: Mapping[str, float]) -> dict[str, str]:
        return {f"selection/{name}": f"{metrics[name]:.4f}" for name in told}

    rows = [
        {"model": c.name, "used": "yes" if c.name in made.members else "no", **scores(c.metrics)}
        for c in made.candidates
    ]
    scored = scores(made.selection)
    show([*rows, {"model": f"{method.value} of {len(made.members)}", "used": "", **scored}], form)
    if form is Format.json:
        return
    for note in made.notes:
        typer.echo(f"note     {note}")
    for what, metrics in (("best", made.alone), (method.value, made.test)):
        typer.echo(f"test     {what:<8} " + "  ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items())))
    typer.echo(f"model    {made.directory}")
    typer.echo(f"predict  {asking(str(made.directory), paired=about.paired)}")


def _metric(run_dir: Path) -> str:
    """What the sweep searched by; nothing where its pipeline is not there."""
    from bothways.config.yaml_io import load_pipeline

    file = run_dir / "pipeline.yaml"
    search = load_pipeline(file, []).search if file.exists() else None
    return search.metric if search else ""
