"""`bothways prepare`: a language model on a pipeline's own texts, kept with its head."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bothways.errors import UserError

_SAID = 20
"""Lines of progress."""


def prepare(
    pipeline: Annotated[Path, typer.Argument(help="A file of pipelines/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as experiment.data.language=zh.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The model directory to write.")] = Path("language-model"),
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Texts a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
) -> None:
    """Train the language model of the pipeline's source on the pipeline's texts, labels and test rows aside.

    An encoder gets a masked-LM head, if it has none, tied to its input embeddings; transformers loads the directory
    with AutoModelForMaskedLM (a decoder's with AutoModelForCausalLM), and contextual_substitution takes it as `model`.
    Settings are those of the pipeline's own continued_pretraining, if it has one, unless they are given here.
    """
    from bothways.config.yaml_io import load_pipeline

    loaded = load_pipeline(pipeline, overrides or [])
    if out.exists():
        raise UserError(f"--out {out}: is there already: name another directory")
    from bothways import data
    from bothways.assets.files import made
    from bothways.edges import local
    from bothways.pretraining import preparing

    made(out.parent, "--out")
    experiment = loaded.experiment
    stage = preparing.kept_stage(experiment, {"steps": steps, "batch_size": batch_size, "lr": lr})
    began = time.monotonic()

    def say(step: int, loss: float) -> None:
        if step % max(1, stage.steps // _SAID) == 0:
            typer.echo(f"{time.monotonic() - began:7.1f} s  step {step:>5}/{stage.steps}  loss {loss:.4f}")

    dataset = data.load(experiment.data, task=experiment.task)
    for note in dataset.notes:
        typer.echo(f"note     {note}")
    record = preparing.language_model(experiment, dataset, stage, local.device(loaded.run), out, say)
    typer.echo(
        f"held out loss {record.first:.4f} → {record.last:.4f}  top-1 {record.top1:.1%}  top-5 {record.top5:.1%}"
    )
    if record.told:
        typer.echo(f"next sentences told from others: {record.told:.1%}")
    typer.echo(f"model    {out}")
