"""Prompt templates: fixed text around a row's own, token by token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from bothways.errors import UserError
from bothways.task_contract import Reader

if TYPE_CHECKING:
    import pyarrow as pa

I32 = npt.NDArray[np.int32]

FEWEST = 4
"""Tokens of a row's own texts for which there must be room."""
_PLACES = ("text", "pair")


class Prompt(NamedTuple):
    """`fields`: which of a row's texts it names, in its order; `around`: what stands before each, and behind the last.

    Tokens are found part by part, so that a text that is cut leaves those of the template as they are.
    """

    around: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def of(cls, template: str) -> Prompt:
        """Raises `UserError` unless it has `{text}` once, and `{pair}` at most once."""
        parts = re.split(r"\{(text|pair)\}", template)
        around, fields = tuple(parts[::2]), tuple(parts[1::2])
        if fields.count("text") != 1 or fields.count("pair") > 1:
            raise UserError(
                f"task.template {template[:60]!r} has {{text}} {fields.count('text')} times and {{pair}} "
                f"{fields.count('pair')} times: write {{text}} once, in the place of the text, or `chat` for the "
                "tokenizer's own template"
            )
        return cls(around, fields)

    def refuse_misfit(self, *, paired: bool) -> None:
        """Raises `UserError` for a pair without a place, or a place without a pair."""
        if paired and "pair" not in self.fields:
            raise UserError("data.pair is set, but task.template has no {pair}: write it where the pair goes")
        if not paired and "pair" in self.fields:
            raise UserError("task.template has {pair}, but data.pair is not set: name the column, or leave {pair} out")

    def filled(self, columns: Sequence[pa.ChunkedArray], reader: Reader, room: int, *, opened: bool) -> list[I32]:
        """The prompt of each row, of at most `room` tokens; the longer of its texts is cut first. `columns`: text, and
        pair. `opened`: whether the tokenizer's special tokens come first. Raises `UserError` when there is no room."""
        import pyarrow as pa

        fixed = ids_of(pa.chunked_array([list(self.around)]), reader)
        if opened:
            first = pa.chunked_array([list(self.around[:1])])
            fixed[0] = lists(reader.inputs(first, max_length=max(room, 1))["input_ids"])[0]
        size = sum(map(len, fixed))
        if room - size < FEWEST:
            raise UserError(
                f"task.template takes {size} of the {room} tokens that task.target_length leaves of model.max_length "
                f"{reader.max_length}, and the text has no room: raise model.max_length"
            )
        texts = [ids_of(columns[_PLACES.index(field)], reader) for field in self.fields]
        return [self._joined(fixed, row, room - size) for row in zip(*texts, strict=True)]

    def _joined(self, fixed: list[I32], texts: tuple[I32, ...], room: int) -> I32:
        parts = [fixed[0]]
        for text, behind, size in zip(texts, fixed[1:], _sizes([len(text) for text in texts], room), strict=True):
            parts += [text[:size], behind]
        return np.concatenate(parts)


def _sizes(counts: list[int], room: int) -> list[int]:
    """How many tokens are kept of one text, or of two: of two that are too long half each, or what the other leaves."""
    if len(counts) == 1:
        return [min(counts[0], room)]
    first = min(counts[0], max(room - counts[1], (room + 1) // 2))
    return [first, min(counts[1], room - first)]


def ids_of(texts: pa.ChunkedArray, reader: Reader) -> list[I32]:
    """The ids of each whole text, without special tokens."""
    return lists(reader.pieces(texts))


def lists(column: pa.ListArray) -> list[I32]:
    """The rows of a list column as arrays."""
    return np.split(column.flatten().to_numpy(), column.offsets.to_numpy()[1:-1]) if len(column) else []
