"""`bothways predict`: what a model says of texts, from a trained model's directory or from the MLflow registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bothways.cli.tables import Format, show
from bothways.errors import UserError


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to label.")] = None,
    model: Annotated[str, typer.Option(help="A directory of a model or ensemble, or models:/NAME@ALIAS.")] = "",
    pairs: Annotated[list[str] | None, typer.Option("--pair", help="The second text, once for each text.")] = None,
    file: Annotated[str, typer.Option(help="One text a line, a tab before its second text; - is stdin.")] = "",
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
    tracking_uri: Annotated[str, typer.Option(help="MLflow, for models:/…")] = "",
    storage: Annotated[Path, typer.Option(help="The pipelines' `run.storage`, for models:/…")] = Path("runs"),
) -> None:
    """Label texts with a trained model, or have it answer, or write."""
    firsts, seconds = _texts(texts or [], pairs or [], file)
    directory = _directory(model, tracking_uri, storage)
    from bothways.ensembles import predictor  # torch: only once the arguments are known to be right

    rows = []
    for text, prediction in zip(firsts, predictor(directory)(firsts, seconds), strict=True):
        shares = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
        top = prediction.probability
        if form is Format.json:
            others = {"probabilities": dict(shares), "value": prediction.value}
            rows.append({"label": prediction.label, "probability": top, "text": text, **others})
        else:
            probability = {} if top is None else {"probability": f"{top:.4f}"}
            rows.append({"label": prediction.label, **probability, "text": text})
    show(rows, form)


def _texts(texts: list[str], pairs: list[str], file: str) -> tuple[list[str], list[str] | None]:
    if file and texts:
        raise UserError("give texts or --file, not both")
    if file:
        rows = [line.split("\t") for line in _lines(file)]
        widths = {len(row) for row in rows}
        if not widths <= {1} and not widths <= {2}:
            raise UserError(f"{file}: every line is one text, or every line is two with a tab between")
        texts, pairs = [row[0] for row in rows], [row[1] for row in rows if len(row) == 2]
    if not texts:
        raise UserError("nothing to label: give texts, or --file FILE with one a line")
    if pairs and len(pairs) != len(texts):
        raise UserError(f"{len(texts)} texts but {len(pairs)} --pair: give one for each text")
    return texts, pairs or None


def _lines(file: str) -> list[str]:
    try:
        content = (sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise UserError(f"{file}: cannot be read: {reason}") from None
    return [line for line in content.split("\n") if line.strip()]


def _directory(model: str, tracking_uri: str, storage: Path) -> Path:
    if not model:
        raise UserError("name a --model: its directory, or models:/NAME@champion")
    if model.startswith("models:/"):
        from bothways.edges.mlflow_tracking import tracking_uri as address

        uri = address(storage, tracking_uri or None)
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():  # MLflow would make one
            raise UserError(f"{model}: there is no {uri}: name another --storage or --tracking-uri")
        from bothways.edges.mlflow_store import model_path

        return model_path(model, uri)
    if not Path(model).is_dir():
        raise UserError(f"{model}: no such directory")
    return Path(model)
