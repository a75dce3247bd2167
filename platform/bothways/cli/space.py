"""`bothways space show`: a search space as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bothways.cli.tables import Format, show
from bothways.config.shape import shown
from bothways.spaces import Space, load_space
from bothways.spaces.knobs import Knob

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Search spaces.")


@app.callback()
def _group() -> None:
    """Search spaces."""


@app.command("show")
def show_space(
    file: Annotated[Path, typer.Argument(help="A file of search_spaces/.")],
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """Print the knobs, their domains, when each is asked for, and the size of the space."""
    space = load_space(file)
    show([_row(knob, space) for knob in space.knobs], form)
    if form in (Format.table, Format.md):
        starts = f"the control arm, then {len(space.start)} given" if space.start else "the control arm"
        typer.echo(f"\n{space.name}: {space.size()}. First: {starts}.")


def _row(knob: Knob, space: Space) -> dict[str, str]:
    conditions = (f"{path} is {' or '.join(map(_plain, values))}" for path, values in knob.when.items())
    return {
        "knob": knob.path,
        "kind": knob.kind,
        "domain": knob.domain(),
        "control": _plain(space.control[knob.path]) if knob.path in space.control else "",
        "when": "; ".join(conditions),
    }


def _plain(value: object) -> str:
    return value if isinstance(value, str) else shown(value)
