"""`bothways suggest-labels`: which rows without labels are worth one next, as a file to be filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bothways.errors import UserError


def suggest_labels(
    model: Annotated[Path, typer.Option(help="The directory of a saved or exported classifier.")],
    texts: Annotated[str, typer.Option(help="Rows without labels: csv, tsv, jsonl, parquet, asset:NAME or hf:….")],
    out: Annotated[Path, typer.Option(help="The csv to write, its column `label` empty.")],
    count: Annotated[int, typer.Option(min=1, help="How many rows.")] = 100,
    text: Annotated[str, typer.Option(help="The column of texts: a name, or a position from 0.")] = "text",
    pair: Annotated[str, typer.Option(help="The column of second texts.")] = "",
    label: Annotated[str, typer.Option(help="A column of labels: rows that have one are left out.")] = "",
    labelled: Annotated[list[str] | None, typer.Option(help="Files of rows that have a label, once for each.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another draw.")] = 0,
) -> None:
    """Pick the rows that the model is unsure of and that differ from each other (BADGE, Ash et al. 2020).

    Left out are repeated texts, those of --labelled, and those that the model was trained on. Fill in the column
    `label` and name the file as a pipeline's data.source.
    """
    if out.exists():
        raise UserError(f"--out {out}: is there already, perhaps with labels: name another file")
    if out.suffix != ".csv":
        raise UserError(f"--out {out}: name a .csv file")
    if not model.is_dir():
        raise UserError(f"--model {model}: no such directory")
    from bothways.data.reading import column
    from bothways.loop import acquisition, label_files

    first, second = column(text or "text"), column(pair)
    assert first is not None
    rows = label_files.unlabelled(texts, first, second, column(label))
    from bothways.predict import Predictor  # torch: only once the texts are known to be there

    seen, by = acquisition.Seen(), Predictor(model)
    by.refuse_unless_classes("suggest-labels")
    for file in labelled or []:
        seen.add((row.text, row.pair) for row in label_files.unlabelled(file, first, second))
    try:
        seen.add(label_files.splits(by.experiment.data))
    except UserError as error:
        typer.echo(f"the rows that the model was trained on are not known ({error}): give them with --labelled")
    paired = second is not None
    found = acquisition.suggest(by, seen.fresh(rows), count, paired=paired, seed=seed)
    if not found:
        raise UserError(f"{texts}: every text is labelled already")
    label_files.write(out, found, paired=paired)
    mean = sum(one.uncertainty for one in found) / len(found)
    typer.echo(
        f"{len(found)} of {len(rows):,} rows in {out}, uncertainty {mean:.2f}; {seen.left_out:,} left out as known"
    )
    typer.echo(f"fill in the column label ({', '.join(by.labels[:10])}), then: data: {{source: {out}}}")
    typer.echo("rows that stay empty are reported as unusable: raise data.max_bad_rows, or remove them")
