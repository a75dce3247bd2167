"""Any augmenter of nlpaug (Ma 2019) by name and arguments, seeded for each row.

nlpaug works one string at a time and rewrites the spacing of what it does not change; the members of this package are
the fast and exact road. A row whose protected words did not all survive stays as it was, and so does one that nlpaug
cannot read. docs/nlpaug.md says which of its augmenters run, and what `nlpaug_repairs` mends.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from bothways.errors import UserError, did_you_mean
from bothways.input_side.nlpaug_repairs import MODELS, NAMES, construct
from bothways.input_side.transform import InputContext, Transform, keeping_protected
from bothways.lazy import torch
from bothways.registry import TRANSFORMS
from bothways.text import TextBatch

_PROBE = "The quick brown fox jumps over the lazy dog. It was not a big dog, and it slept."
"""What an augmenter has to get through once: what fails here fails for every text, and is the user's to know."""


@TRANSFORMS.register("nlpaug")
class Nlpaug(Transform):
    """`augmenter`: nlpaug's module and class, as in `word.RandomWordAug`. `arguments`: of its constructor.

    `flow.Sequential` and `flow.Sometimes` take `flow`, a list of mappings with `augmenter` and `arguments`.
    """

    term: ClassVar[str] = "nlpaug bridge"
    source: ClassVar[str] = "Ma 2019, nlpaug"

    augmenter: str = "word.RandomWordAug"
    arguments: dict[str, Any] = Field(default_factory=lambda: {"action": "swap"}, validate_default=True)

    @field_validator("augmenter")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in NAMES:
            raise ValueError(f"nlpaug has no augmenter {name!r}: {did_you_mean(name, NAMES)}")
        return name

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        texts = batch.texts()
        row_keys = context.row_keys(batch)
        with _own_randomness(self.augmenter in MODELS or self.augmenter.startswith("flow.")) as seed:
            build = _augmenter(self.augmenter, json.dumps(self.arguments, sort_keys=True))
            for row in context.active(batch).tolist():
                if texts[row].strip():
                    seed(int(row_keys[row]))
                    with suppress(Exception):  # it has got through the probe: what breaks it is this text
                        texts[row] = _one(build.augment(texts[row])) or texts[row]
        return keeping_protected(batch, texts, context)


def _one(result: Any) -> str:
    """nlpaug 1.x returns a list of texts, 2.x a text."""
    return str(result[0] if result else "") if isinstance(result, list) else str(result)


@lru_cache(maxsize=8)
def _augmenter(name: str, arguments: str) -> Any:
    try:
        augmenter = construct(name, json.loads(arguments))
        augmenter.augment(_PROBE)
    except Exception as problem:  # nlpaug and what it calls raise anything at all for bad arguments or missing files
        reason = next((line for line in str(problem).splitlines() if line.strip(" *")), type(problem).__name__)
        if isinstance(problem, ModuleNotFoundError):
            reason = f"needs a package that is not installed: {reason.strip()}"
        raise UserError(f"nlpaug {name} with arguments {arguments}: {reason.strip()}") from problem
    return augmenter


@contextmanager
def _own_randomness(models: bool) -> Iterator[Callable[[int], None]]:
    """Seeds what nlpaug draws from: the global generators, and torch's for `models`. Leaves them as they were."""

    def seed(number: int) -> None:
        random.seed(number)
        np.random.seed(number & 0xFFFFFFFF)
        if models:
            torch.default_generator.manual_seed(number >> 1)

    state, array_state = random.getstate(), np.random.get_state()
    tensor_state = torch.get_rng_state() if models else None
    try:
        yield seed
    finally:
        random.setstate(state)
        np.random.set_state(array_state)
        if tensor_state is not None:
            torch.set_rng_state(tensor_state)
