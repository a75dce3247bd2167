"""Key-phrase extraction: what a text is about, in its own words, put before it, behind it, or in its place.

`yake`: YAKE! (Campos et al. 2020), from the text alone: words that are capitalised, early, frequent, in many sentences
and always in the same company; a phrase multiplies what its words score. `textrank`: TextRank (Mihalcea & Tarau 2004):
PageRank over the words that stand near each other, with stop words left out where the authors keep nouns and
adjectives. Of phrases that share a word the better one counts (YAKE! compares spellings instead). Chinese is read in
words, found by jieba (the extra `bothways[zh]`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.input_side.keyphrases import Words, textrank, yake
from bothways.input_side.transform import InputContext, Transform
from bothways.registry import TRANSFORMS, Choices, Range
from bothways.text import Ints, Segmentation, TextBatch, spans

_BETWEEN = {"en": "; ", "zh": "；"}


@TRANSFORMS.register("extract_keyphrases")
class ExtractKeyphrases(Transform):
    """`n`: how many phrases. `mode`: where they go: `phrases | text`, `text | phrases`, or instead of the text, in its
    order and together with its protected words. `max_words`: the longest phrase."""

    term: ClassVar[str] = "key-phrase extraction"
    source: ClassVar[str] = "Campos et al. 2020, YAKE!; Mihalcea & Tarau 2004, TextRank"
    train_only: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any]] = {"n": 0}

    n: Annotated[int, Field(ge=0, le=100), Range(0, 5)] = 3
    mode: Annotated[Literal["prepend", "append", "replace"], Choices("prepend", "append", "replace")] = "prepend"
    method: Annotated[Literal["yake", "textrank"], Choices("yake", "textrank")] = "yake"
    max_words: Annotated[int, Field(ge=1, le=5)] = 3

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        texts = batch.texts()
        if not self.n or not texts:
            return batch
        unit: Segmentation = "word" if context.language == "zh" else context.segmentation
        words = Words.of(replace(context, segmentation=unit).read(texts, batch.keys), context.language)
        found = (yake if self.method == "yake" else textrank)(words, self.max_words)
        chosen = found.best(self.n, words)
        chosen = chosen[np.isin(words.rows[found.first[chosen]], context.active(batch))]
        first, last = (words.tokens[found.first[chosen] + ahead] for ahead in (0, found.lengths[chosen] - 1))
        if self.mode == "replace":
            first, last = _with_protected(words.batch, first, last)
        between = _BETWEEN[context.language]
        for row, phrases in _slices(words.batch, texts, first, last).items():
            listed = between.join(phrases)
            texts[row] = {
                "prepend": f"{listed} | {texts[row]}",
                "append": f"{texts[row]} | {listed}",
                "replace": listed,
            }[self.mode]
        return context.rewritten(batch, texts)


def _with_protected(batch: TextBatch, first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """Phrases in the order of the text, together with the protected tokens of their rows; what touches is one."""
    kept = np.zeros(batch.kinds.size, dtype=bool)
    kept[spans(first, last + 1)] = True
    chosen = np.zeros(len(batch), dtype=bool)
    chosen[batch.rows_of(first)] = True
    kept |= batch.protected & np.repeat(chosen, batch.sizes)
    edges = np.flatnonzero(np.diff(kept.astype(np.int8), prepend=0, append=0))
    return edges[::2], edges[1::2] - 1


def _slices(batch: TextBatch, texts: list[str], first: Ints, last: Ints) -> dict[int, list[str]]:
    """Row → what stands in its text from the token `first` to the token `last`, for each of these."""
    rows = batch.rows_of(first)
    base = batch.starts[batch.offsets[rows], 0]
    begins, ends = batch.starts[first, 1] - base, batch.stops[last, 1] - base
    found: dict[int, list[str]] = {}
    for row, begin, end in zip(rows.tolist(), begins.tolist(), ends.tolist(), strict=True):
        found.setdefault(row, []).append(texts[row][begin:end])
    return found
