"""Several sources as one set of instructions with their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bothways.config.domains import Instructions
from bothways.data.reading import Broken, Columns, Record
from bothways.data.sources import parts
from bothways.data.splitting import row_ids
from bothways.errors import UserError
from bothways.seeding import keys


def instructions(sources: Sequence[Instructions], seed: int) -> Iterator[tuple[str, list[Record]]]:
    """What each source is called, and its records as instructions, in its order.

    Raises `UserError` when a source has fewer rows than are asked for.
    """
    for source in sources:
        found = list(parts(source.source, Columns(source.text, None, source.label))["train"])
        if source.rows is not None:
            found = _drawn(found, source.rows, source.source, seed)
        asked = [(line, values if isinstance(values, Broken) else _asked(values, source)) for line, values in found]
        yield source.source, asked


def _drawn(found: list[Record], count: int, name: str, seed: int) -> list[Record]:
    if len(found) < count:
        raise UserError(f"data.source: {name} has {len(found):,} rows, but {count:,} are asked for: lower its `rows`")
    contents = [("", "", repr(values)) for _, values in found]
    order = np.argsort(keys("instructions", seed, row_ids(contents)), kind="stable")
    return [found[at] for at in np.sort(order[:count])]


def _asked(values: list[object], source: Instructions) -> list[object]:
    """A text in its prompt, if there is one, and its label as an answer."""
    text, label = values
    answer = source.answers.get(str(label).strip(), label)
    if not isinstance(text, str) or not text.strip():
        return [text, answer]
    return [source.prompt.replace("{text}", text), answer]
