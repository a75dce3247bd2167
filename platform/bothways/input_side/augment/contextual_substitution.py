"""Contextual substitution: words drawn with probability p are masked, and a masked language model says what else could
stand there.

Kobayashi 2018 (without the label); SSMBA (Ng et al. 2020) for masked models. All drawn words of a text are masked at
once, each as one mask however many pieces it has, and each becomes a piece that is a whole word, drawn from the `top_k`
likeliest by exp(logit / temperature): never the word itself, never a special token, never a protected word such as a
negator. Where a piece covers several Chinese characters, these are masked and replaced together.
The draw is Gumbel-max over noise from the row's key, the word's place and the candidate; logits come from passes of
fixed shapes (see `masked_lm`), so that a row becomes the same whatever stands beside it. Once drawn, a row's words are
remembered by its text and key: other trials of the process do not pay again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from bothways.input_side.masked_lm import MaskedLm, candidates, masked_lm
from bothways.input_side.synonyms import capitalised_like
from bothways.input_side.transform import Draw, InputContext, Transform, again, draw
from bothways.lazy import torch
from bothways.registry import TRANSFORMS, Range
from bothways.seeding import U64, keys
from bothways.text import IDEOGRAPH, LETTER, Bools, Ints, TextBatch, decoded, encoded, gathered, kinds_of, ragged

CAPACITY = 1 << 15
"""Rows remembered in a process."""
_remembered: OrderedDict[tuple[Any, ...], tuple[Edit, ...]] = OrderedDict()


class Edit(NamedTuple):
    """`span` tokens of a row from `token` on, counted in the row, become `text`."""

    token: int
    span: int
    text: str


@TRANSFORMS.register("contextual_substitution")
class ContextualSubstitution(Transform):
    """`p`: probability that a word is replaced; 0.15 where a model is named and no `p`. `model`: a masked language
    model, `hf:…` or a directory such as `bothways prepare` writes. `temperature`: below 1 prefers likely words.
    `top_k`: from how many of the likeliest words one is drawn; 0: from all.
    """

    term: ClassVar[str] = "contextual substitution (masked-LM sampling)"
    source: ClassVar[str] = "Kobayashi 2018; Ng et al. 2020, SSMBA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.4)] = 0.0
    model: str = ""
    temperature: Annotated[float, Field(gt=0.0), Range(0.5, 1.5)] = 1.0
    top_k: Annotated[int, Field(ge=0), Range(5, 100, log=True)] = 20

    @model_validator(mode="before")
    @classmethod
    def _substitutes(cls, knobs: Any) -> Any:
        return {"p": 0.15, **knobs} if isinstance(knobs, dict) and knobs.get("model") else knobs

    @model_validator(mode="after")
    def _has_a_model(self) -> ContextualSubstitution:
        if self.p > 0 and not self.model:
            raise ValueError(
                "needs a `model` with a masked-LM head: train one with `bothways prepare PIPELINE --out DIR` and give "
                "DIR, or name one of the hub (hf:org/name@revision)"
            )
        return self

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not self.p or not len(batch):
            return batch
        drawn = draw(batch, context, self.p)
        rows = np.flatnonzero(batch.per_row(drawn.taken) > 0)
        if not rows.size:
            return batch
        written = Written.of(batch)
        setting = (self.model, self.temperature, self.top_k, context.slot, context.protect)
        state = drawn.taken + 2 * batch.free.view(np.uint8)
        names = [
            (
                *setting,
                int(batch.keys[row]),
                written.text(row),
                state[batch.offsets[row] : batch.offsets[row + 1]].tobytes(),
            )
            for row in rows.tolist()
        ]
        unknown = [number for number, name in enumerate(names) if name not in _remembered]
        if unknown:
            found = self._edits(batch, context, drawn, written, rows[unknown])
            _remembered.update((names[number], edits) for number, edits in zip(unknown, found, strict=True))
        edits = [_remembered[name] for name in names]
        for name in names:
            _remembered.move_to_end(name)
        while len(_remembered) > CAPACITY:
            _remembered.popitem(last=False)
        return _edited(batch, rows, edits)

    def _edits(
        self, batch: TextBatch, context: InputContext, drawn: Draw, written: Written, rows: Ints
    ) -> list[tuple[Edit, ...]]:
        """What becomes of each of `rows`."""
        lm = masked_lm(self.model)
        units = Units.of(batch, written, rows, drawn.taken, lm)
        picked = [""] * len(units.tokens)
        if units.tokens.size:
            hidden = lm.hidden(*units.masked(lm.mask_id))
            bits = again(drawn.bits[units.tokens], "substitute")
            for kind in np.unique(units.kinds).tolist():
                some = np.flatnonzero(units.kinds == kind)
                for number, text in zip(some, self._sample(lm, hidden, units, some, bits, context), strict=True):
                    picked[number] = text
        first = batch.offsets[rows[units.rows]]
        every: list[list[Edit]] = [[] for _ in rows]
        for row, token, span, text in zip(
            units.rows.tolist(), (units.tokens - first).tolist(), units.spans.tolist(), picked, strict=True
        ):
            every[row].append(Edit(token, span, text))
        return [tuple(edits) for edits in every]

    def _sample(
        self, lm: MaskedLm, hidden: Any, units: Units, some: Ints, bits: U64, context: InputContext
    ) -> list[str]:
        """New words for the units `some`, which are all of one kind."""
        words = candidates(self.model, int(units.kinds[some[0]]), context.protect)
        refused = [words.at.get(units.texts[number].lower(), ()) for number in some.tolist()]
        at = torch.from_numpy(some).to(hidden.device)
        logits, places = lm.best(hidden[at], words.ids, refused, self.top_k)
        noise = keys(bits[some][:, None], words.ids[places])
        uniform = ((noise >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        best = np.argmax(logits / self.temperature - np.log(-np.log(uniform)), axis=1)
        return [words.texts[place] for place in places[np.arange(len(some)), best].tolist()]


@dataclass(frozen=True, eq=False)
class Written:
    """A batch's texts as they stand, all in one string, a separator behind each; where in it rows begin, (R + 1,), and
    where every token's word is, (T,) each."""

    all: str
    begins: Ints
    starts: Ints
    stops: Ints

    @classmethod
    def of(cls, batch: TextBatch) -> Written:
        first, last, _ = batch.pieces(batch.starts, batch.stops, batch.kinds, batch.offsets)
        ends = np.cumsum(last - first)
        begins = np.append(0, ends[2 * batch.offsets[1:] - 1])
        text = decoded(gathered(batch.codes, first, last))
        return cls(text, begins, ends[1::2] - (last - first)[1::2], ends[1::2])

    def text(self, row: int) -> str:
        return self.all[self.begins[row] : self.begins[row + 1] - 1]


@dataclass(frozen=True, eq=False)
class Units:
    """What is masked of some rows: the least runs of text that both words and pieces end with.

    `rows`: the number of each unit's row among these, (U,). `tokens`, `spans`, `kinds`, `texts`: its first token in the
    batch, how many it takes, their kind and their text. `pieces`: of every piece of the rows, (P,) each: row, id, and
    the number of its unit, -1 where it is in none.
    """

    rows: Ints
    tokens: Ints
    spans: Ints
    kinds: Ints
    texts: list[str]
    pieces: tuple[Ints, Ints, Ints]

    @classmethod
    def of(cls, batch: TextBatch, written: Written, rows: Ints, taken: Bools, lm: MaskedLm) -> Units:
        """The units whose first word is drawn, of `rows` of the batch. One with a word that is not free, or with no
        piece, is left out."""
        texts = [written.text(row) for row in rows.tolist()]
        sizes = np.array([len(text) for text in texts])
        begins = np.cumsum(sizes) - sizes
        # Words and pieces as spans of the rows' characters, counted through all of them.
        words = batch.sizes[rows] - 1
        tokens = ragged(batch.offsets[rows], words)
        shift = np.repeat(begins - written.begins[rows], words)
        starts, stops = written.starts[tokens] + shift, written.stops[tokens] + shift
        found = lm.encoded(texts)
        counts = np.array([len(one.ids) for one in found])
        piece_rows = np.repeat(np.arange(len(rows)), counts)
        ids = np.concatenate([one.ids for one in found])
        limits = np.concatenate([one.offsets for one in found]) + begins[piece_rows][:, None]
        real = (limits[:, 1] > limits[:, 0]) & (np.concatenate([one.special_tokens_mask for one in found]) == 0)
        # A character that no span crosses into begins a run.
        edges = np.zeros(int(sizes.sum()) + 2, dtype=np.int64)
        for first, last in ((starts, stops), tuple(limits[real].T)):
            np.add.at(edges, first + 1, 1)
            np.add.at(edges, last, -1)
        run = np.cumsum(np.cumsum(edges) <= 0)
        word_run, piece_run = run[starts], run[limits[:, 0]]
        total = int(run[-1]) + 1
        letters = batch.kinds[tokens] == LETTER
        amiss = np.bincount(word_run, ~batch.free[tokens], total) > 0
        amiss |= (np.bincount(word_run, letters, total) > 0) & (np.bincount(word_run, minlength=total) > 1)
        amiss |= np.bincount(piece_run[real], minlength=total) == 0
        runs, at = np.unique(word_run, return_index=True)
        mine = taken[tokens[at]] & ~amiss[runs]
        runs, at = runs[mine], at[mine]
        span = np.bincount(word_run, minlength=total)[runs]
        number = np.full(total, -1)
        number[runs] = np.arange(runs.size)
        everything = "".join(texts)
        return cls(
            rows=np.repeat(np.arange(len(rows)), words)[at],
            tokens=tokens[at],
            spans=span,
            kinds=np.where(letters[at], LETTER, IDEOGRAPH),
            texts=[everything[a:b] for a, b in zip(starts[at].tolist(), stops[at + span - 1].tolist(), strict=True)],
            pieces=(piece_rows, ids, np.where(real, number[piece_run], -1)),
        )

    def masked(self, mask_id: int) -> tuple[list[Ints], list[Ints]]:
        """The ids of every row with one mask for each unit, and where these stand."""
        rows, ids, unit = self.pieces
        repeated = np.append(False, (unit[1:] == unit[:-1]) & (unit[1:] >= 0))
        ids, rows = np.where(unit >= 0, mask_id, ids)[~repeated], rows[~repeated]
        cuts = np.searchsorted(rows, np.arange(1, rows[-1] + 1))
        hit = (unit >= 0)[~repeated]
        return np.split(ids, cuts), [np.flatnonzero(part) for part in np.split(hit, cuts)]


def _edited(batch: TextBatch, rows: Ints, edits: Sequence[Sequence[Edit]]) -> TextBatch:
    """The batch with the edits of each of `rows` made. A capital first letter is kept."""
    flat = [edit for some in edits for edit in some]
    if not flat:
        return batch
    within, extent = np.array([(edit.token, edit.span) for edit in flat], dtype=np.int64).T
    tokens = np.repeat(batch.offsets[rows], [len(some) for some in edits]) + within
    codes = encoded("".join(edit.text for edit in flat))
    lengths = np.array([len(edit.text) for edit in flat], dtype=np.int64)
    codes = capitalised_like(batch.codes[batch.starts[tokens, 1]], codes, lengths)
    result = batch.replaced(tokens, codes, lengths, kinds_of(codes, lengths))
    if extent.max() == 1:
        return result
    rest = np.zeros(batch.kinds.size, dtype=bool)
    rest[ragged(tokens + 1, extent - 1)] = True
    return result.without(rest)
