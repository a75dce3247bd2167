"""`bothways lexicon`: vocabulary maps for the transform `lexicon_map`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bothways.cli.tables import Format, show
from bothways.config import Language
from bothways.errors import UserError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Vocabulary maps for lexicon_map.")
_SHOWN = 20


@app.callback()
def lexicon() -> None:
    """Vocabulary maps for lexicon_map."""


@app.command()
def learn(
    source: Annotated[str, typer.Argument(help="Texts of the domain to map from: asset:NAME, hf:…, or a file.")],
    target: Annotated[str, typer.Argument(help="Texts of the domain to map to.")],
    out: Annotated[Path, typer.Option(help="The TSV to write: source, target, similarity.")],
    model: Annotated[str, typer.Option(help="Whose input embeddings say which words are alike.")] = "asset:minilm-l6",
    text: Annotated[str, typer.Option(help="The column of texts: a name, or a position from 0.")] = "text",
    language: Annotated[str, typer.Option(help="en or zh.")] = "en",
    least: Annotated[int, typer.Option(min=1, help="Rarer words are left out.")] = 5,
    similarity: Annotated[float, typer.Option(min=-1.0, max=1.0, help="The least cosine of a pair.")] = 0.3,
) -> None:
    """Learn which words of one domain another says in its own way, and write them as a map.

    Read the map before you use it: neighbours in meaning can be opposites.
    """
    if language not in Language.__args__:  # type: ignore[attr-defined]
        raise UserError(f"--language {language!r}: choose en or zh")
    ours, theirs = _texts(source, text), _texts(target, text)
    from bothways.input_side.lexicon_learning import domain_words, pairs
    from bothways.models.word_vectors import input_vectors  # torch: only once both corpora are read

    words = domain_words(ours, theirs, language=language, least=least)
    found = pairs(words, input_vectors(model, words.words), similarity=similarity)
    if not found:
        raise UserError(f"no pairs among {len(words.words)} words: give more text, or lower --least or --similarity")
    lines = [f"{pair.source}\t{pair.target}\t{pair.similarity:.3f}\n" for pair in found]
    try:
        out.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from error
    typer.echo(f"{len(found)} pairs in {out}; the first {min(_SHOWN, len(found))}:")
    rows = [pair._asdict() for pair in found[:_SHOWN]]
    show([{k: v if isinstance(v, str) else f"{v:.2f}" for k, v in row.items()} for row in rows], Format.table)


def _texts(source: str, written: str) -> list[str]:
    """The training texts of a data source, labelled or not."""
    from bothways.data.checking import usable_texts
    from bothways.data.reading import Columns, column
    from bothways.data.sources import parts

    asked = column(written or "text")
    assert asked is not None
    texts = usable_texts(parts(source, Columns(asked, None, None))["train"])
    if not texts:
        raise UserError(f"{source} has no usable text in the column {asked!r}: name another with --text")
    return texts
