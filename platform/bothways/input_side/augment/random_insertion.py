"""Random insertion (RI): with probability p for each word, something new is put into the row.

`synonym`: a synonym of the drawn word, at a random place (EDA, Wei & Zou 2019). `punctuation`: a mark in front of the
drawn word (AEDA, Karimi et al. 2021). `vocabulary`: a word of the training rows, by frequency, in front of it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.input_side.synonyms import thesaurus
from bothways.input_side.transform import InputContext, Transform, again, draw
from bothways.registry import TRANSFORMS, Choices, Range
from bothways.seeding import U64, below
from bothways.text import PUNCTUATION, Ints, TextBatch, encoded, kinds_of

_MARKS = {"en": encoded(".;?:!,"), "zh": encoded("。；？：！，")}


@TRANSFORMS.register("random_insertion")
class RandomInsertion(Transform):
    """`p`: insertions per word. `insert`: what is inserted."""

    term: ClassVar[str] = "random insertion (RI)"
    source: ClassVar[str] = "Wei & Zou 2019, EDA; Karimi et al. 2021, AEDA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.3)] = 0.1
    insert: Annotated[
        Literal["punctuation", "synonym", "vocabulary"], Choices("punctuation", "synonym", "vocabulary")
    ] = "punctuation"

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        among = batch.free if self.insert == "synonym" else batch.is_word
        drawn = draw(batch, context, self.p, among)
        tokens = drawn.tokens
        bits = drawn.bits[tokens]
        if self.insert == "punctuation":
            marks = _MARKS[context.language][below(again(bits, "mark"), 6)]
            ones = np.ones(tokens.size, dtype=np.int64)
            return batch.inserted(tokens, marks, ones, np.full(tokens.size, PUNCTUATION, dtype=np.uint8))
        if self.insert == "vocabulary":
            statistics = context.vocabulary(self.name)
            return batch.inserted(tokens, *statistics.words(statistics.unigrams.draw(again(bits, "word"))))
        return self._synonyms(batch, context, tokens, bits)

    def _synonyms(self, batch: TextBatch, context: InputContext, tokens: Ints, bits: U64) -> TextBatch:
        book = thesaurus(context.language)
        matches = book.match(batch, tokens)
        bits = bits[np.searchsorted(tokens, matches.tokens)]
        picked = book.pick(matches.numbers, again(bits, "synonym"))
        rows = batch.rows_of(matches.tokens)
        places = batch.offsets[rows] + below(again(bits, "place"), batch.sizes[rows] - 1)
        order = np.argsort(places, kind="stable")
        order = order[picked[order] >= 0]
        codes, lengths = book.spelled(picked[order])
        return batch.inserted(places[order], codes, lengths, kinds_of(codes, lengths))
