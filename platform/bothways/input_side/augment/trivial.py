"""TrivialAugment: one operation, drawn for each row, at a strength drawn for each row. Needs no search.

Müller & Hutter 2021; for text it is AutoGluon's default.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from bothways.input_side.transform import BASIC_OPERATIONS, InputContext, Operations, Transform, mixture
from bothways.registry import TRANSFORMS, Range
from bothways.seeding import uniforms
from bothways.text import TextBatch


@TRANSFORMS.register("trivial")
class Trivial(Transform):
    """`p`: the largest strength. `operations`: names of transforms that have a `p`."""

    term: ClassVar[str] = "TrivialAugment"
    source: ClassVar[str] = "Müller & Hutter 2021"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.5)] = 0.2
    operations: Operations = BASIC_OPERATIONS

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        strength = uniforms(context.row_keys(batch, "strength"))
        if context.strength is not None:
            strength = strength * context.strength
        return mixture(batch, replace(context, strength=np.asarray(strength)), self.operations, self.p)
