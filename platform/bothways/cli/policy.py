"""`bothways policy`: what a found policy is, what it does to texts, and a file of texts with their copies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bothways.cli.tables import Format, show
from bothways.config import Experiment, Operation
from bothways.errors import UserError
from bothways.policy import file as policy_file

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Policies of augmentation.")

File = Annotated[Path, typer.Argument(help="A policy file, such as a sweep's policy.yaml, or a pipeline file.")]
Source = Annotated[str, typer.Option("--data", help="csv, tsv, jsonl, parquet, asset:NAME or hf:org/name@revision.")]
TextColumn = Annotated[str, typer.Option("--text", help="The column of texts: a name, or a position from 0.")]
PairColumn = Annotated[str, typer.Option("--pair", help="The column of second texts.")]
LabelColumn = Annotated[str, typer.Option("--label", help="The column of labels; none where there are none.")]
Copies = Annotated[int | None, typer.Option("--copies", min=1, max=64, help="Copies of a row, instead of n_aug.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Another seed than the file's.")]


@app.callback()
def _group() -> None:
    """Policies of augmentation."""


@app.command("show")
def show_policy(
    file: File, form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table
) -> None:
    """Print a policy's operations with their knobs."""
    experiment = policy_file.load(file)
    side = experiment.input
    rows = [
        _row(str(number), operation)
        for number, operations in enumerate(side.augment.policy, 1)
        for operation in operations
    ]
    reconstruct = [
        {"sub-policy": "every row", "operation": t.name, "probability": "", "p": "", "schedule": "", "knobs": _knobs(t)}
        for t in side.reconstruct
    ]
    if form in (Format.table, Format.md):
        typer.echo(_describe(file, experiment))
    if rows or reconstruct or form is Format.json:
        show([*reconstruct, *rows], form)


def _row(number: str, operation: Operation) -> dict[str, str]:
    p = getattr(operation.transform, "p", None)
    return {
        "sub-policy": number,
        "operation": operation.transform.name,
        "probability": f"{operation.probability:g}",
        "p": "" if p is None else f"{p:g}",
        "schedule": _schedule(operation.schedule),
        "knobs": _knobs(operation.transform),
    }


def _schedule(schedule: Any) -> str:
    if isinstance(schedule, str):
        return schedule
    return ", ".join(f"{factor:g} from {share:.0%}" for share, factor in schedule)


def _knobs(transform: Any) -> str:
    knobs = transform.spec().items()
    return ", ".join(
        f"{key}: {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in knobs
        if key not in ("name", "p")
    )


def _describe(file: Path, experiment: Experiment) -> str:
    """One line on what a policy does as a whole."""
    side, augment = experiment.input, experiment.input.augment
    protected = [what for what in ("negators", "numbers") if getattr(side.protect, what)] + list(side.protect.words)
    parts = [
        f"{_count(augment.n_aug, 'copy', 'copies')} of a row" + ", more of rarer classes" * augment.balance,
        "originals kept" if augment.keep_original else "originals not kept",
        f"{_count(len(augment.policy), 'sub-policy', 'sub-policies')}, one drawn for each copy",
        f"language {experiment.data.language}",
        f"protected: {', '.join(protected) or 'nothing'}",
        *([f"segmentation {side.segmentation}"] if side.segmentation != "character" else []),
    ]
    if not (augment.n_aug or augment.balance) or not augment.policy:
        parts.append("so nothing is changed")
    return f"{file.name}: {'; '.join(parts)}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


@app.command()
def preview(
    file: File,
    data: Source = "",
    text: TextColumn = "",
    pair: PairColumn = "",
    label: LabelColumn = "",
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, max=1000, help="Rows to show.")] = 10,
    copies: Copies = None,
    seed: Seed = None,
    at: Annotated[
        float | None, typer.Option("--at", min=0, max=1, help="The share of a training, for schedules.")
    ] = None,
) -> None:
    """Show texts beside what a policy makes of them."""
    experiment = _experiment(file, copies, seed)
    from bothways.cli.preview import Preview  # pyarrow: only once the file is known to be right

    source = _source(experiment, data, (text, pair, label))
    Preview(source, experiment, rows, at).print(_describe(file, experiment))


@app.command()
def apply(
    file: File,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl or .parquet file to write.")],
    data: Source = "",
    text: TextColumn = "",
    pair: PairColumn = "",
    label: LabelColumn = "",
    copies: Copies = None,
    seed: Seed = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write texts with their changed copies to a file.

    Its columns: id, copy (0 is the original), text, pair and label.
    """
    experiment = _experiment(file, copies, seed)
    from rich.console import Console

    from bothways.policy import apply as policy_apply

    source = _source(experiment, data, (text, pair, label))
    if out.exists() and (Path(source.name).exists() and out.samefile(source.name)):
        raise UserError(f"{out}: is the file that is read: choose another name")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: is there already: choose another name, or give --overwrite")
    began, done = time.monotonic(), None
    with Console(stderr=True).status("reading …") as status:
        for done in policy_apply.apply(source, experiment, out):
            status.update(f"{done.read:,} rows read, {done.written:,} written")
    assert done is not None
    seconds = time.monotonic() - began
    typer.echo(f"ok  {out}: {done.written:,} rows from {done.read:,}, in {seconds:.1f} s")
    if done.rejected:
        typer.echo(f"    {_count(done.rejected, 'row', 'rows')} could not be used: see {done.rejected_file}")


def _experiment(file: Path, copies: int | None, seed: int | None) -> Experiment:
    """The file's experiment with what the options change."""
    experiment = policy_file.load(file)
    if copies is not None:
        augment = experiment.input.augment.model_copy(update={"n_aug": copies, "balance": False})
        experiment = experiment.model_copy(update={"input": experiment.input.model_copy(update={"augment": augment})})
    if seed is not None:
        experiment = experiment.model_copy(update={"seed": seed})
    return experiment


def _source(experiment: Experiment, data: str, columns: tuple[str, str, str]) -> Any:
    """What is read: the options, and where they are silent what the pipeline file says."""
    from bothways.data.reading import Columns, column
    from bothways.policy.apply import Source

    own = experiment.data
    name = data or own.source
    if not isinstance(name, str):
        raise UserError("data.source is a list, and a policy reads one source: give --data FILE")
    if not name:
        raise UserError("a policy file names no data: give --data FILE")
    text, pair, label = map(column, columns)
    known = own if not data else None  # other data have columns of their own
    return Source(
        name=name,
        columns=Columns(
            text=text if text is not None else known.text if known else "text",
            pair=pair if pair is not None else known.pair if known else None,
            label=None if label == "none" else label if label is not None else known.label if known else "label",
        ),
    )
