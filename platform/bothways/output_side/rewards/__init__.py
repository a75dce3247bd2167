"""What an answer is worth: one file a reward. Others are added by installed packages: see `registry.installed`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from bothways.registry import Component

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bothways.contracts import Forward, Said


class Reward(Component):
    """What every member is: a number for each answer, larger for a better one.

    An answer to a classification task is the name of its class, to a task that writes its text. `forward` is for
    rewards that ask a model (`Forward.judge`).
    """

    @abstractmethod
    def __call__(self, said: Said, forward: Forward) -> Sequence[float]: ...


class WordReward(Reward):
    """One that holds each answer against its reference alone."""

    @abstractmethod
    def of(self, answer: str, reference: str) -> float:
        """What an answer is worth where `reference` would have been right."""

    def __call__(self, said: Said, forward: Forward) -> Sequence[float]:
        return [self.of(*pair) for pair in zip(said.answers, said.references, strict=True)]
