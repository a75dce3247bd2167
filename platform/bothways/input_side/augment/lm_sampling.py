"""Language-model sampling: a copy becomes a new text of its row's class, if a classifier of the training rows agrees.

After LAMBADA (Anaby-Tavor et al. 2020), which tunes a language model on the labelled rows, has it write new ones for a
class, and keeps those that a classifier is surest of. Here the model is not tuned: it is shown some rows of the class,
as in GPT3Mix (Yoo et al. 2021), and goes on from the first words of the row. What it wrote is kept if a logistic
regression over tf-idf, fitted on the training rows only, gives the row's label at least the probability `confidence`,
if it is no training row and does not go round in circles. Otherwise the row stays as it was.

A row's label is that of the training row it is; of a text that is none, the one the classifier is as sure of. How good
the texts are is the model's affair: one of 135 M parameters writes the language, but little sense.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.config import Protect
from bothways.errors import UserError
from bothways.input_side.examples import Examples
from bothways.input_side.generated import Written
from bothways.input_side.generation import Settings, degenerate, write
from bothways.input_side.transform import InputContext, Transform, drawn_rows, losing
from bothways.registry import TRANSFORMS, Range
from bothways.seeding import below, keys
from bothways.text import Ints, TextBatch

_HEADS = {"en": "Text:", "zh": "文本："}
_WIDEST = 400  # characters of a row that is shown
_LAST_SENTENCE = re.compile(r".*[.!?。！？…][\"'”’）)]*", re.DOTALL)


@TRANSFORMS.register("lm_sampling")
class LmSampling(Transform):
    """`p`: probability that a row becomes a new text. `model`: a causal language model, as in `model.source`.
    `confidence`: the least probability of the row's label (τ). `shots`: rows of the class that the model is shown.
    `start`: words of the row that its new text begins with (characters in Chinese). `temperature`, `top_k`, `top_p`:
    what each token is drawn from. `max_tokens`: at most so many. `keep`: words that must be in the new text too: the
    `listed` ones, or negators and numbers as well (`protected`)."""

    term: ClassVar[str] = "language-model sampling (LAMBADA)"
    source: ClassVar[str] = "Anaby-Tavor et al. 2020, LAMBADA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}
    takes_examples: ClassVar[bool] = True

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 1.0)] = 0.5
    model: str = "asset:smollm2-135m"
    confidence: Annotated[float, Field(ge=0.0, le=1.0), Range(0.5, 0.9)] = 0.7
    shots: Annotated[int, Field(ge=1, le=32)] = 4
    start: Annotated[int, Field(ge=0, le=32)] = 2
    temperature: Annotated[float, Field(gt=0.0, le=5.0), Range(0.5, 1.2)] = 0.8
    top_k: Annotated[int, Field(ge=1, le=1000)] = 50
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 48
    keep: Literal["listed", "protected"] = "listed"

    @property
    def loads_model(self) -> bool:
        return self.p > 0

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not self.p or not len(batch):
            return batch
        examples = None if context.statistics is None else context.statistics.examples
        if examples is None:
            raise UserError("lm_sampling needs training rows of single texts with a class each, and there are none")
        rows = drawn_rows(batch, context, self.p)
        if not rows.size:
            return batch
        texts = batch.texts()
        labels = self._labels(batch, rows, texts, examples)
        rows, labels = rows[labels >= 0], labels[labels >= 0]
        row_keys = context.row_keys(batch, "sample")[rows]
        starts = _starts(batch, rows, self.start)
        prompts = [
            self._prompt(examples, label, key, context.language) + (f" {start}" if start else "")
            for label, key, start in zip(labels.tolist(), row_keys, starts, strict=True)
        ]
        how = Settings(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            new_tokens=0.0,
            more=self.max_tokens,
            stop="\n",
        )
        written = write(self.model, prompts, row_keys, how)
        new = [_whole(start, one) for start, one in zip(starts, written, strict=True)]
        usable = [bool(text) and text not in examples and not degenerate(text, 2, 10_000) for text in new]
        good = np.array(usable, dtype=bool) & (examples.confidence(new, labels) >= self.confidence)
        for i in np.flatnonzero(good).tolist():
            texts[rows[i]] = new[i]
        before = batch if self.keep == "protected" else _listed(batch, context)
        lost = set(losing(before, texts).tolist())
        old = batch.texts()
        return context.rewritten(batch, [old[i] if i in lost else text for i, text in enumerate(texts)])

    def _labels(self, batch: TextBatch, rows: Ints, texts: list[str], examples: Examples) -> Ints:
        """The class of each row, -1 where nobody is sure."""
        first = batch
        while first.earlier is not None:
            first = first.earlier
        labels = examples.labels_of([first.originals[row] for row in rows.tolist()])
        strange = np.flatnonzero(labels < 0)
        for label in examples.rows_of:
            guess = np.full(strange.size, label)
            sure = examples.confidence([texts[row] for row in rows[strange].tolist()], guess)
            labels[strange[sure >= max(self.confidence, 0.5)]] = label
        return labels

    def _prompt(self, examples: Examples, label: int, key: np.uint64, language: str) -> str:
        """Rows of the class, drawn by the row's key, each on a line of its own; then the beginning of one more."""
        among = examples.rows_of[label]
        picks = below(keys(np.full(self.shots, key, dtype=np.uint64), np.arange(self.shots)), among.size)
        head = _HEADS[language]
        lines = (" ".join(examples.texts[row].split())[:_WIDEST] for row in dict.fromkeys(among[picks].tolist()))
        return "".join(f"{head} {line}\n" for line in lines) + head


def _starts(batch: TextBatch, rows: Ints, words: int) -> list[str]:
    """The first words of each row, as they stand."""
    if not words:
        return [""] * rows.size
    stops = np.minimum(batch.offsets[rows] + words, batch.offsets[rows + 1] - 1)
    kept = np.zeros(batch.kinds.size, dtype=bool)
    for row, stop in zip(rows.tolist(), stops.tolist(), strict=True):
        kept[batch.offsets[row] : stop] = True
    kept[batch.offsets[1:] - 1] = True
    texts = batch.without(~kept).texts()
    return [" ".join(texts[row].split()) for row in rows.tolist()]


def _whole(start: str, one: Written) -> str:
    """The new text, up to the end of its last sentence where it was cut off; nothing where that leaves nothing."""
    text = f"{start}{one.text}".strip() if one.text.strip() else ""
    if one.ended or not text:
        return text
    found = _LAST_SENTENCE.match(text)
    return found[0] if found and len(found[0]) > len(start) else ""


def _listed(batch: TextBatch, context: InputContext) -> TextBatch:
    """The batch with only the listed words protected."""
    listed = Protect(negators=False, numbers=False, words=context.protect.words)
    return replace(context, protect=listed).read(batch.texts(), batch.keys)
