"""A reward model (Stiennon et al. 2020): a trained model says what an answer is worth.

It is a saved or exported model of bothways: a regression, whose number is the reward, or a classifier, whose
probability of `label` is. One that reads pairs gets the text and the answer, another one the answer alone. It is known
by its content, as a teacher is: see `objectives/distillation.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from bothways.contracts import Forward, Said, Teacher
from bothways.errors import UserError, did_you_mean
from bothways.output_side.rewards import Reward
from bothways.output_side.teacher import content
from bothways.registry import REWARDS

if TYPE_CHECKING:
    from collections.abc import Sequence


@REWARDS.register("reward_model")
class RewardModel(Reward):
    """`directory`: of the model. `label`: the class whose probability is the reward; null for a regression. `digest`:
    of the model's content; found by itself."""

    term = "reward model"
    source = "Stiennon et al. 2020"

    directory: str
    label: str | None = None
    digest: str = ""

    @model_validator(mode="before")
    @classmethod
    def _known_by_content(cls, knobs: Any) -> Any:
        if isinstance(knobs, dict) and isinstance(knobs.get("directory"), str) and not knobs.get("digest"):
            return {**knobs, "digest": content(knobs["directory"])}
        return knobs

    def __call__(self, said: Said, forward: Forward) -> Sequence[float]:
        found = forward.judge(Teacher(self.directory, self.digest), said)
        if self.label is None:
            values = [one.value for one in found]
            if not all(isinstance(value, float | int) for value in values):
                raise UserError(f"reward model {self.directory} gives no numbers: name one of its classes as `label`")
            return [float(value) for value in values]
        if self.label not in found[0].probabilities:
            known = did_you_mean(self.label, found[0].probabilities)
            raise UserError(f"reward model {self.directory} has no class {self.label!r}: {known}")
        return [one.probabilities[self.label] for one in found]
