"""Any augmenter of nlpaug (Ma 2019) by name and arguments, seeded for each row.

nlpaug works one string at a time and rewrites the spacing of what it does not change; the members of this package are
the fast and exact road. A row whose protected words did not all survive stays as it was.
"""

from __future__ import annotations

import importlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from bothways.errors import UserError, did_you_mean
from bothways.input_side.transform import InputContext, Transform
from bothways.registry import TRANSFORMS
from bothways.text import TextBatch

_AUGMENTERS = {
    "char": ("KeyboardAug", "OcrAug", "RandomCharAug"),
    "word": (
        "AntonymAug",
        "BackTranslationAug",
        "ContextualWordEmbsAug",
        "RandomWordAug",
        "ReservedAug",
        "SpellingAug",
        "SplitAug",
        "SynonymAug",
        "TfIdfAug",
        "WordEmbsAug",
    ),
    "sentence": ("AbstSummAug", "ContextualWordEmbsForSentenceAug", "LambadaAug", "RandomSentAug"),
}
_NAMES = [f"{module}.{name}" for module, names in _AUGMENTERS.items() for name in names]


@TRANSFORMS.register("nlpaug")
class Nlpaug(Transform):
    """`augmenter`: nlpaug's module and class, as in `word.RandomWordAug`. `arguments`: of its constructor."""

    term: ClassVar[str] = "nlpaug bridge"
    source: ClassVar[str] = "Ma 2019, nlpaug"

    augmenter: str = "word.RandomWordAug"
    arguments: dict[str, Any] = Field(default_factory=lambda: {"action": "swap"}, validate_default=True)

    @field_validator("augmenter")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in _NAMES:
            raise ValueError(f"nlpaug has no augmenter {name!r}: {did_you_mean(name, _NAMES)}")
        return name

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        build = _augmenter(self.augmenter, json.dumps(self.arguments, sort_keys=True))
        texts = batch.texts()
        row_keys = context.row_keys(batch)
        with _own_randomness():
            for row in context.active(batch).tolist():
                if texts[row].strip():
                    seed = int(row_keys[row])
                    random.seed(seed)
                    np.random.seed(seed & 0xFFFFFFFF)  # nlpaug draws from the global generators
                    texts[row] = _one(build.augment(texts[row])) or texts[row]
        return _keeping_protected(batch, texts, context)


def _one(result: Any) -> str:
    """nlpaug 1.x returns a list of texts, 2.x a text."""
    return str(result[0] if result else "") if isinstance(result, list) else str(result)


def _keeping_protected(batch: TextBatch, texts: list[str], context: InputContext) -> TextBatch:
    """The batch with these texts, but for rows that lost a protected word."""
    before, tokens = batch.texts(), batch.tokens()
    after = context.read(texts, batch.keys).tokens()
    for row in np.flatnonzero(batch.per_row(batch.protected)).tolist():
        mask = batch.protected[batch.offsets[row] : batch.offsets[row + 1] - 1].tolist()
        needed = Counter(word for word, kept in zip(tokens[row], mask, strict=True) if kept)
        if needed - Counter(after[row]):
            texts[row] = before[row]
    return context.rewritten(batch, texts)


@lru_cache(maxsize=8)
def _augmenter(name: str, arguments: str) -> Any:
    module, cls = name.split(".")
    try:
        return getattr(importlib.import_module(f"nlpaug.augmenter.{module}"), cls)(**json.loads(arguments))
    except ModuleNotFoundError as missing:
        raise UserError(f"nlpaug {name} needs the package {missing.name!r}, which is not installed") from missing
    except Exception as problem:  # nlpaug and what it calls raise anything at all for bad arguments or missing files
        reason = next((line for line in str(problem).splitlines() if line.strip(" *")), type(problem).__name__)
        raise UserError(f"nlpaug {name} with arguments {arguments}: {reason.strip()}") from problem


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leaves the global generators as they were."""
    state, array_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(array_state)
