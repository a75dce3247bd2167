"""Synonym replacement (SR): words drawn with probability p become one of their synonyms, if they have any.

EDA (Wei & Zou 2019). English: WordNet, any case, a capital first letter is kept. Chinese: the Cilin thesaurus; read
character by character, the longest known word (up to four characters) that begins at the drawn character. Or, in both,
the nearest neighbours among a model's own input embeddings (as in Wang & Yang 2015): words that it reads as one token,
by their cosine once the common mean is taken off (Mu & Viswanath 2018).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.errors import UserError
from bothways.input_side.synonyms import Thesaurus, capitalised_like, embedding_thesaurus, thesaurus
from bothways.input_side.transform import InputContext, Transform, again, draw
from bothways.registry import TRANSFORMS, Range, unless
from bothways.text import TextBatch, kinds_of, ragged


@TRANSFORMS.register("synonym_replacement")
class SynonymReplacement(Transform):
    """`p`: probability that a word which has synonyms is replaced. `synonyms`: out of the language's `thesaurus`, or
    the neighbours in the input `embeddings` of `model`, by default the one that is trained, with a cosine of at least
    `similarity`."""

    term: ClassVar[str] = "synonym replacement (SR)"
    source: ClassVar[str] = "Wei & Zou 2019, EDA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.5)] = 0.1
    synonyms: Annotated[Literal["thesaurus", "embeddings"], unless("thesaurus")] = "thesaurus"
    model: Annotated[str, unless("")] = ""
    similarity: Annotated[float, Field(ge=0.0, le=1.0), unless(0.5)] = 0.5

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not self.p:
            return batch
        drawn = draw(batch, context, self.p)
        book = self._book(context)
        tokens, spans, numbers = book.match(batch, drawn.tokens)
        picked = book.pick(numbers, again(drawn.bits[tokens], "synonym"))
        tokens, spans, picked = tokens[picked >= 0], spans[picked >= 0], picked[picked >= 0]
        codes, lengths = book.spelled(picked)
        codes = capitalised_like(batch.codes[batch.starts[tokens, 1]], codes, lengths)
        result = batch.replaced(tokens, codes, lengths, kinds_of(codes, lengths))
        if not tokens.size or spans.max() == 1:
            return result
        rest = np.zeros(batch.kinds.size, dtype=bool)
        rest[ragged(tokens + 1, spans - 1)] = True  # the other characters of the words replaced
        return result.without(rest)

    def _book(self, context: InputContext) -> Thesaurus:
        if self.synonyms == "thesaurus":
            return thesaurus(context.language)
        if not (self.model or context.model):
            raise UserError("synonym_replacement with `synonyms: embeddings` needs a `model`, such as asset:minilm-l6")
        return embedding_thesaurus(self.model or context.model, context.language, self.similarity)
