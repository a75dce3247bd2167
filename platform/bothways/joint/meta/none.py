"""No meta-learning: episodes start from the pretrained weights as they are. What the other methods are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bothways.joint.meta import Episode, Learner, Meta
from bothways.registry import META

if TYPE_CHECKING:
    from torch import Tensor


@META.register("none")
class NoMeta(Meta):
    term = "few-shot fine-tuning"
    trains: ClassVar[bool] = False

    def gradient(self, learner: Learner, episode: Episode, steps: int, share: float) -> Tensor:
        raise AssertionError("there is nothing to train")
