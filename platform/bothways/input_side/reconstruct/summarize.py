"""Summarisation: the sentences that say most of what a text says, as they stand and in their order; or a model's words.

`lexrank`: continuous LexRank (Erkan & Radev 2004, section 3.3): PageRank over the cosines of the sentences' tf-idf
vectors. `textrank`: TextRank (Mihalcea & Tarau 2004) with BM25+ as the similarity (Barrios et al. 2016), which needs no
pair of sentences to be looked at, where the overlap of the original does. `lead`: the first sentences. Document
frequencies are counted over the sentences of the text itself, so that a text's summary is its own affair.

`model`: a sequence-to-sequence model writes the summary, always the same for a text; of its sentences as many as the
length allows, but at least one. Where it loses a word that must stay, writes more than the text had or goes round in
circles, or where the text is too long for it, the summary is LexRank's. No package brings such a model.

Chinese without full stops is read clause by clause; its terms are words, or pairs of characters where the
segmentation is by character.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from bothways.config import Protect
from bothways.input_side.generation import Settings, degenerate, write
from bothways.input_side.graph_ranking import pagerank
from bothways.input_side.lookup import fold, word_hashes
from bothways.input_side.protection import listed
from bothways.input_side.sentences import COMMAS, Sentences, sentences, single_marks
from bothways.input_side.stop_words import says_little
from bothways.input_side.transform import InputContext, Transform, losing
from bothways.registry import TRANSFORMS, Choices, Range, unless
from bothways.seeding import F64, keys
from bothways.text import IDEOGRAPH, Bools, Ints, TextBatch, spans

Method = Literal["lexrank", "textrank", "lead", "model"]
_K1, _B, _FLOOR = 1.2, 0.75, 1.0  # BM25+ (Lv & Zhai 2011)


@TRANSFORMS.register("summarize")
class Summarize(Transform):
    """`ratio`: share of the words that may stay. `max_words`: how many at most. The best sentence always stays.
    `method`: `model` needs a `model`, as in `model.source`, and has `prefix` before its inputs (T5's: "summarize: ").
    `keep`: which protected words hold their sentence in the summary whatever its length: the `listed` ones, or negators
    and numbers as well (`protected`); otherwise those leave together with the whole sentence they are in."""

    term: ClassVar[str] = "summarisation, extractive or by a model"
    source: ClassVar[str] = "Erkan & Radev 2004, LexRank; Mihalcea & Tarau 2004, TextRank"
    train_only: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any]] = {"ratio": 1.0, "max_words": None}

    ratio: Annotated[float, Field(gt=0.0, le=1.0), Range(0.3, 1.0)] = 0.5
    max_words: Annotated[int, Field(ge=1)] | None = None
    method: Annotated[Method, Choices("lexrank", "textrank", "lead")] = "lexrank"
    keep: Literal["listed", "protected"] = "listed"
    model: Annotated[str, unless("")] = ""
    prefix: Annotated[str, unless("")] = ""

    @model_validator(mode="after")
    def _has_a_model(self) -> Summarize:
        if (self.method == "model") != bool(self.model):
            raise ValueError("`method: model` and `model`, a directory or hf:org/name, belong together")
        return self

    @property
    def loads_model(self) -> bool:
        return self.method == "model"

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        words = batch.per_row(batch.is_word) if len(batch) else np.zeros(0, dtype=np.int64)
        budget = self._budget(words, context)
        if not (budget < words).any():
            return batch
        batch = context.fresh(batch)
        if self.method == "model":
            return self._written(batch, context, np.flatnonzero(budget < words), budget)
        return self._extracted(batch, context, words, budget)

    def _extracted(self, batch: TextBatch, context: InputContext, words: Ints, budget: Ints) -> TextBatch:
        if not (budget < words).any():
            return batch
        batch, found = sentences(batch, clauses=context.language == "zh")
        found = found.only((budget < words)[found.rows])
        pinned = self._pinned(batch, context, found)
        order = np.lexsort((-self._scores(batch, context, found), ~pinned, found.rows))
        length = found.words[order]
        total = np.cumsum(length)
        rows = found.rows[order]
        begins = np.append(True, rows[1:] != rows[:-1])
        earlier = (total - length)[begins][np.cumsum(begins) - 1]
        kept = (total - earlier <= budget[rows]) | begins | pinned[order]
        dropped = np.zeros(batch.kinds.size, dtype=bool)
        gone = order[~kept]
        dropped[spans(found.first[gone], found.stop[gone])] = True
        return batch.without(dropped | _open_ends(batch, dropped)) if gone.size else batch

    def _written(self, batch: TextBatch, context: InputContext, rows: Ints, budget: Ints) -> TextBatch:
        """What a model writes of `rows`, cut to whole sentences within their budgets; of others, extracts."""
        texts = batch.texts()
        inputs = [self.prefix + texts[row] for row in rows.tolist()]
        how = Settings(temperature=0.0, new_tokens=1.0)
        written = [one.text.strip() if one.ended else "" for one in write(self.model, inputs, batch.keys[rows], how)]
        read = context.read(written, batch.keys[rows])
        lead = replace(context, strength=None)
        size = read.per_row(read.is_word) if len(read) else budget[:0]
        cut = self.model_copy(update={"method": "lead"})._extracted(read, lead, size, budget[rows]).texts()
        listed = replace(context, protect=Protect(negators=False, numbers=False, words=context.protect.words))
        kept = batch if self.keep == "protected" else listed.read(texts, batch.keys)
        new = list(texts)
        for row, text in zip(rows.tolist(), cut, strict=True):
            new[row] = text if not degenerate(text, 1, len(texts[row])) else ""
        bad = {*losing(kept, new).tolist(), *(row for row in rows.tolist() if not new[row].strip())}
        instead = self.model_copy(update={"method": "lexrank", "model": ""})(batch, context).texts() if bad else new
        return context.rewritten(batch, [instead[i] if i in bad else text for i, text in enumerate(new)])

    def _budget(self, words: Ints, context: InputContext) -> Ints:
        """Words that may stay in each row, (R,)."""
        strength = np.ones(words.size) if context.strength is None else context.strength
        budget = np.ceil(words * (1.0 - (1.0 - self.ratio) * strength)).astype(np.int64)
        if self.max_words is not None:
            budget = np.where(strength > 0, np.minimum(budget, self.max_words), budget)
        return budget

    def _pinned(self, batch: TextBatch, context: InputContext, found: Sentences) -> Bools:
        """Sentences with a word that must stay, (S,)."""
        if self.keep == "protected":
            kept = batch.protected
        elif context.protect.words:
            kept = listed(batch, context.protect.words)
        else:
            return np.zeros(found.first.size, dtype=bool)
        before = np.append(0, np.cumsum(kept))
        return np.asarray(before[found.stop] > before[found.first])

    def _scores(self, batch: TextBatch, context: InputContext, found: Sentences) -> F64:
        """How central each sentence is, (S,)."""
        if self.method == "lead":
            return -found.first.astype(np.float64)
        bag = _bag(batch, context, found)
        peers = np.bincount(found.rows, minlength=len(batch))[found.rows].astype(np.float64)
        n = found.rows.size
        document = np.unique(keys(bag.terms, found.rows[bag.sentences]), return_inverse=True)[1]  # a row's own terms
        frequency = np.bincount(document)[document]
        idf = np.log(1.0 + peers[bag.sentences] / frequency)
        if self.method == "lexrank":
            weights = bag.counts * idf
            norm = np.sqrt(np.bincount(bag.sentences, weights**2, n))
            gives = takes = weights / norm[bag.sentences]
        else:
            size = np.bincount(bag.sentences, bag.counts, n)
            mean = np.bincount(found.rows, size, len(batch))[found.rows] / peers
            share = (size / np.maximum(mean, 1e-9))[bag.sentences]
            takes = idf * (_FLOOR + bag.counts * (_K1 + 1.0) / (bag.counts + _K1 * (1.0 - _B + _B * share)))
            gives = np.ones(takes.size)

        own = np.bincount(bag.sentences, gives * takes, n)  # a sentence does not speak for itself
        reach = np.bincount(bag.sentences, gives * np.bincount(document, takes)[document], n) - own
        alone = reach < 1e-9

        def spread(rank: F64) -> F64:
            rank = np.where(alone, 0.0, rank / np.where(alone, 1.0, reach))
            carried = np.bincount(document, gives * rank[bag.sentences])
            return np.bincount(bag.sentences, takes * carried[document], n) - own * rank

        return pagerank(spread, peers)


class _Bag(NamedTuple):
    """Which term is in which sentence, and how often."""

    sentences: Ints
    terms: np.ndarray[Any, np.dtype[np.uint64]]
    counts: F64


def _bag(batch: TextBatch, context: InputContext, found: Sentences) -> _Bag:
    """The content words of the sentences; in Chinese read character by character, pairs of neighbours."""
    tokens = spans(found.first, found.stop)
    of = np.repeat(np.arange(found.first.size), found.stop - found.first)
    words = batch.is_word[tokens]
    tokens, of = tokens[words], of[words]
    codes, lengths = batch.words(tokens)
    terms = word_hashes(fold(codes), lengths)
    content = ~says_little(batch, tokens, context.language)
    if context.segmentation == "character" and tokens.size:
        ideograph = batch.kinds[tokens] == IDEOGRAPH
        paired = ideograph[:-1] & ideograph[1:] & (tokens[1:] == tokens[:-1] + 1) & (of[1:] == of[:-1])
        both = keys(terms[:-1], terms[1:].astype(np.int64))
        terms = np.append(np.where(paired, both, terms[:-1]), terms[-1:])
        content = np.where(ideograph, np.append(paired, False), content)
    terms, of = terms[content], of[content]
    order = np.lexsort((terms, of))
    terms, of = terms[order], of[order]
    first = np.append(True, (terms[1:] != terms[:-1]) | (of[1:] != of[:-1]))[: terms.size]
    counts = np.diff(np.append(np.flatnonzero(first), terms.size))
    return _Bag(of[first], terms[first], counts.astype(np.float64))


def _open_ends(batch: TextBatch, dropped: Bools) -> Bools:
    """Commas that would now be the last token of their row, (T,)."""
    result = np.zeros(dropped.size, dtype=bool)
    last = np.maximum.accumulate(np.where(dropped, 0, np.arange(dropped.size)))[batch.offsets[1:] - 2]
    cut = last[(last < batch.offsets[1:] - 2) & (last > batch.offsets[:-1])]
    result[np.intersect1d(cut, single_marks(batch, COMMAS))] = True
    return result
