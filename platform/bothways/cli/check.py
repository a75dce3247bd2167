"""`bothways check`: everything that can be known about a file before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bothways.config import Data, Experiment
from bothways.config.yaml_io import Document, load_pipeline, read, space_file
from bothways.errors import UserError
from bothways.loop import is_loop, load_loop
from bothways.spaces import WORDS, Space, load_space


def check(
    files: Annotated[list[Path], typer.Argument(help="Files of pipelines/ and search_spaces/.")],
    rows: Annotated[
        int, typer.Option("-n", "--rows", min=0, max=1000, help="Training rows to show as the model reads them.")
    ] = 0,
) -> None:
    """Check pipeline and space files. A line for each file that is right; all errors, and exit 2, if one is not."""
    problems = []
    for file in files:
        try:
            typer.echo(f"ok  {file}: {_describe(file)}")
            if rows and _is_pipeline(read(file)):
                from bothways.cli.as_read import as_read  # torch: only where it is asked for

                for line in as_read(load_pipeline(file).experiment, rows):
                    typer.echo(line)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))


def _describe(file: Path) -> str:
    document = read(file)
    if is_loop(document.data):
        loop = load_loop(file)
        for name, pipeline in loop.pipelines.items():
            if loop.stage(name).kind == "tune":
                load_space(loop.space(loop.stage(name))).check(pipeline.experiment)
        return f"loop {loop.name}, stages {', '.join(stage.name for stage in loop.stages)}"
    if _is_space(document):
        space = load_space(file)
        space.check(Experiment(data=Data(source="any")))  # knobs and control, held against a config of defaults
        return f"a space of {_words(space)}"
    pipeline = load_pipeline(file)
    if few_shot := pipeline.few_shot:
        return f"pipeline {pipeline.name}, {len(few_shot.arms)} few-shot arms, {few_shot.seeds} seeds each"
    found = space_file(file, pipeline)
    if found is None or pipeline.search is None:
        return f"pipeline {pipeline.name}, one experiment"
    space = load_space(found)
    space.check(pipeline.experiment)
    return f"pipeline {pipeline.name}, {pipeline.search.trials} trials in {found}, {_words(space)}"


def _is_space(document: Document) -> bool:
    """A space is told by its dotted paths; whatever else is read as a pipeline, whose errors name the keys it needs."""
    keys = document.data if isinstance(document.data, dict) else {}
    return "experiment" not in keys and any("." in key or key in WORDS[1:] for key in keys)


def _is_pipeline(document: Document) -> bool:
    return not is_loop(document.data) and not _is_space(document)


def _words(space: Space) -> str:
    return f"{len(space.knobs)} knobs, {space.size()}"
