"""Vocabulary mapping: words of one domain become those that another has for the same, x' = m(x, V_s, V_t).

The map is a TSV of the user's, or learned from two corpora by `bothways lexicon learn` (see `lexicon_learning`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from bothways.input_side.synonyms import capitalised_like
from bothways.input_side.transform import InputContext, Transform, draw
from bothways.input_side.word_map import word_map
from bothways.registry import TRANSFORMS, Range
from bothways.text import TextBatch, kinds_of, ragged


@TRANSFORMS.register("lexicon_map")
class LexiconMap(Transform):
    """`path`: a file of `source<TAB>target` lines, UTF-8; a source is a word or several in a row, in any case, and its
    first letter's case is kept. `rate`: the share of their occurrences that is replaced, drawn for each; all of them
    where there is a path and no rate."""

    term: ClassVar[str] = "vocabulary mapping (V_s → V_t)"
    source: ClassVar[str] = "Monroe, Colaresi & Quinn 2008, Fightin' Words (for a learned map)"
    train_only: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any]] = {"rate": 0.0}

    path: str = ""
    rate: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 1.0)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _maps_all(cls, knobs: Any) -> Any:
        return {"rate": 1.0, **knobs} if isinstance(knobs, dict) and knobs.get("path") else knobs

    @model_validator(mode="after")
    def _has_a_map(self) -> LexiconMap:
        if self.rate > 0 and not self.path:
            raise ValueError("needs a `path`, a TSV of source<TAB>target: write one or run `bothways lexicon learn`")
        return self

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not self.rate or not len(batch):
            return batch
        table = word_map(self.path)
        found = table.match(batch)
        taken = draw(batch, context, self.rate).taken[found.tokens]
        tokens, spans, numbers = (part[taken] for part in found)
        codes, lengths = table.spelled(numbers)
        codes = capitalised_like(batch.codes[batch.starts[tokens, 1]], codes, lengths)
        result = batch.replaced(tokens, codes, lengths, kinds_of(codes, lengths))
        if tokens.size and spans.max() > 1:
            rest = np.zeros(batch.kinds.size, dtype=bool)
            rest[ragged(tokens + 1, spans - 1)] = True  # the other words of a phrase
            result = result.without(rest)
        return result if table.plain[numbers].all() else context.rewritten(batch, result.texts())
