"""Back-translation: a text is translated into another language and back, and says the same in other words.

x' = back(forward(x)), Sennrich, Haddow & Birch 2016; as augmentation of labelled text, Yu et al. 2018 (QANet) and UDA
(Xie et al. 2020). With a temperature, translations are sampled (Edunov et al. 2018), which gives each copy its own.

A text that comes back unchanged, much shorter or longer, going round in circles, cut off, or without one of its
protected words stays as it was; so does one that is too long for the models. No package brings a pair of translation
models: name a directory, or `hf:` sources such as the pairs of OPUS-MT. Models for many pairs have to be told the
language in the text (`forward_prefix: ">>fr<< "`); those that want it as a first token of the output are not served.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from bothways.input_side.generation import Settings, degenerate, write
from bothways.input_side.transform import InputContext, Transform, drawn_rows, keeping_protected
from bothways.registry import TRANSFORMS, Range
from bothways.seeding import keys
from bothways.text import TextBatch


@TRANSFORMS.register("back_translation")
class BackTranslation(Transform):
    """`p`: probability that a row is translated; half of them, where models are named and no `p`. `forward`, `back`:
    sequence-to-sequence models, as in `model.source`. `forward_prefix`, `back_prefix`: what stands before their inputs.
    `temperature`: 0 for the likeliest words, which are the same for every copy. `top_k`: words that are drawn from.
    `ratio`: how much shorter or longer a text may become."""

    term: ClassVar[str] = "back-translation (round trip)"
    source: ClassVar[str] = "Sennrich, Haddow & Birch 2016"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 1.0)] = 0.0
    forward: str = ""
    back: str = ""
    forward_prefix: str = ""
    back_prefix: str = ""
    temperature: Annotated[float, Field(ge=0.0, le=5.0), Range(0.5, 1.2)] = 0.9
    top_k: Annotated[int, Field(ge=1, le=1000)] = 50
    ratio: Annotated[float, Field(ge=1.0)] = 2.0

    @model_validator(mode="before")
    @classmethod
    def _translates(cls, knobs: Any) -> Any:
        return {"p": 0.5, **knobs} if isinstance(knobs, dict) and knobs.get("forward") and knobs.get("back") else knobs

    @model_validator(mode="after")
    def _has_models(self) -> BackTranslation:
        if self.p > 0 and not (self.forward and self.back):
            raise ValueError("needs `forward` and `back`, two translation models: directories, or hf:org/name sources")
        return self

    @property
    def loads_model(self) -> bool:
        return self.p > 0

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        if not self.p or not len(batch):
            return batch
        rows = drawn_rows(batch, context, self.p)
        if not rows.size:
            return batch
        texts = batch.texts()
        row_keys = context.row_keys(batch, "translation")[rows]
        how = Settings(temperature=self.temperature, top_k=self.top_k, more=16)
        there = write(self.forward, [self.forward_prefix + texts[row] for row in rows.tolist()], row_keys, how)
        came = np.flatnonzero([one.ended and bool(one.text.strip()) for one in there])
        again = [self.back_prefix + there[i].text for i in came.tolist()]
        for i, one in zip(came.tolist(), write(self.back, again, keys(row_keys[came], "back"), how), strict=True):
            old, new = texts[rows[i]], one.text.strip()
            if one.ended and not degenerate(new, int(len(old) / self.ratio), int(len(old) * self.ratio)):
                texts[rows[i]] = new
        return keeping_protected(batch, texts, context)
