"""`bothways few-shot`: a pipeline's arms meta-trained on episodes, and judged by episodes of other classes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bothways.cli.tables import Format, show
from bothways.errors import UserError


def few_shot(
    pipeline: Annotated[Path, typer.Argument(help="A file of pipelines/ with a few_shot section.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as few_shot.episodes.shots=1 or few_shot.seeds=3.")
    ] = None,
) -> None:
    """Meta-train every arm of the pipeline, and judge it by tasks of a few rows of classes it has never seen.

    Prints accuracy over seeds and episodes with its 95 % interval, and keeps every arm's model as a directory that
    `model.source` can name.
    """
    from bothways.config.yaml_io import load_pipeline

    loaded = load_pipeline(pipeline, overrides or [])
    from bothways.cli.tune import interruptible
    from bothways.edges.few_shot import run
    from bothways.edges.lease import sweep_directory
    from bothways.few_shot.result import sentences, table
    from bothways.training import Diverged

    directory = sweep_directory(Path(loaded.run.storage).resolve(), f"{loaded.name}-few-shot", resume=False)
    began = time.monotonic()

    def tell(line: str) -> None:
        typer.echo(f"{time.monotonic() - began:7.1f} s  {line}")

    try:
        with interruptible(f"the models of the arms that are done are in {directory / 'models'}"):
            arms = run(loaded, directory, tell)
    except Diverged as error:
        raise UserError(f"meta-training failed: {error}") from None
    show(table(arms), Format.table)
    for sentence in sentences(arms):
        typer.echo(sentence)
    typer.echo(f"result   {directory / 'result.md'}")
    for arm in arms:
        if arm.model:
            typer.echo(f"model    {arm.model}")
