"""RandAugment: n operations in a row, each drawn uniformly, all at the same strength. Two numbers instead of a policy.

Cubuk et al. 2020.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from bothways.input_side.transform import BASIC_OPERATIONS, InputContext, Operations, Transform, mixture
from bothways.registry import TRANSFORMS, Range
from bothways.text import TextBatch


@TRANSFORMS.register("rand")
class Rand(Transform):
    """`n`: operations per row. `p`: their strength. `operations`: names of transforms that have a `p`."""

    term: ClassVar[str] = "RandAugment"
    source: ClassVar[str] = "Cubuk et al. 2020"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    n: Annotated[int, Field(ge=0, le=8), Range(1, 3)] = 2
    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.3)] = 0.1
    operations: Operations = BASIC_OPERATIONS

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        for step in range(self.n):
            batch = mixture(batch, replace(context, slot=f"{context.slot}/{step}"), self.operations, self.p)
        return batch
