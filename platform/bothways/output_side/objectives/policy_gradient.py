"""Reinforcement learning (Williams 1992): the model answers, each answer gets a reward, and likely is what pays.

L = supervised * CE + strength * L_PG, where L_PG raises the expected reward J(theta) = E r of the model's own answers
to the rows of the batch; see `output_side/answers.py` for the three methods and the KL to the model before training.

An answer is a class, or a text that the model writes; it is drawn without dropout, and its probability is computed with
the dropout of the step, as for labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr, model_validator

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.output_side.answers import Method, PolicyGradient, of_classes
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, REWARDS, Choices, Range
from bothways.task_contract import Logits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Reward = Any
else:
    Reward = REWARDS.field


@OBJECTIVES.register("policy_gradient")
class Policy(Objective):
    """`strength`: of the policy gradient, `supervised`: of the cross-entropy beside it (0: reward alone). `method`: the
    baseline. `draws`: answers to each row. `temperature`: at which they are drawn. `kl`: weight of the divergence from
    the model before training.
    """

    term = "policy gradient: REINFORCE, SCST, GRPO"
    source = "Williams 1992, Rennie et al. 2017, Shao et al. 2024"
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0), Range(0.1, 5.0, log=True)] = 1.0
    reward: Annotated[Reward, Field(validate_default=True)] = {"name": "accuracy"}  # noqa: RUF012 (pydantic copies it)
    method: Annotated[Method, Choices("reinforce", "self_critical", "group_relative")] = "group_relative"
    draws: Annotated[int, Field(ge=1, le=64), Range(2, 8)] = 4
    temperature: Annotated[float, Field(gt=0.0, le=10.0), Range(0.5, 1.5)] = 1.0
    kl: Annotated[float, Field(ge=0.0), Range(0.0, 0.1)] = 0.04
    supervised: Annotated[float, Field(ge=0.0), Range(0.0, 1.0)] = 1.0
    _classes: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Policy:
        if self.strength and self.method != "self_critical" and self.draws < 2:
            raise ValueError(f"{self.method} compares a row's draws with each other: set draws to 2 or more")
        return self

    @property
    def logits(self) -> tuple[Logits, ...]:
        return ("classes", "tokens")

    @property
    def answers(self) -> bool:
        return self.strength > 0

    @property
    def recalls(self) -> bool:
        return self.strength > 0 and self.kl > 0

    @property
    def _gradient(self) -> PolicyGradient:
        return PolicyGradient(method=self.method, draws=self.draws, temperature=self.temperature, kl=self.kl)

    def for_classes(self, counts: Sequence[int]) -> Policy:
        return of_classes(self)

    @property
    def passes(self) -> tuple[int, int]:
        if not self.strength:
            return PLAIN
        forward, backward = self._gradient.passes(classes=self._classes)
        return 1 + forward, 1 + backward

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if not self.strength:
            return plain(forward, batch, task)
        found = self._gradient(forward, batch, batch, task, lambda said: self.reward(said, forward))
        return Loss(
            total=self.supervised * found.hard + self.strength * found.soft,
            parts={"supervised": found.hard.detach(), "reward": found.reward, "divergence": found.divergence},
        )
