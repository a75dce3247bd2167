"""No change: what the control and the plain-copy arm read."""

from __future__ import annotations

from typing import ClassVar

from bothways.input_side.transform import InputContext, Transform
from bothways.registry import TRANSFORMS
from bothways.text import TextBatch


@TRANSFORMS.register("identity")
class Identity(Transform):
    """x' = x."""

    term: ClassVar[str] = "plain copy (control)"

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        return batch
