"""Learning from what was said of answers (`data.feedback`: a text, an answer, what was said of it, a revision).

L = supervised * CE + strength * L_F, over rows of feedback beside the batch, in one of three modes:

- `imitation` (ILF, Scheurer et al. 2023): L_F is the cross-entropy of the revision. Where there are several, the data
  keep the one that follows the feedback best.
- `hindsight` (chain of hindsight, Liu et al. 2023): the cross-entropy of the revision, after what was said, the answer
  it was said of and the text: the model learns what a better answer is from what was wrong with another.
- `reward`: the feedback is a reward, which a policy gradient (`group_relative`, see `output_side/answers.py`) raises:
  an answer drawn from the model is worth its likeness to the revision less its likeness to the answer that was
  revised, by the F1 of their words; for classes, 1, -1, or 0 for any other. Where the answer was good, and is its own
  revision, the likeness to it is all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from bothways.contracts import Batch, Beside, FeedbackPart, Forward, Loss, Said, TaskLike
from bothways.output_side.answers import PolicyGradient, of_classes
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Choices, Range
from bothways.task_contract import Logits
from bothways.text_scores import answer_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

Mode = Literal["imitation", "hindsight", "reward"]
_READ: dict[str, tuple[FeedbackPart, ...]] = {
    "imitation": ("chosen",),
    "hindsight": ("told",),
    "reward": ("chosen", "rejected"),
}


@OBJECTIVES.register("language_feedback")
class LanguageFeedback(Objective):
    """`strength`: of what is learnt from feedback, `supervised`: of the cross-entropy beside it. `mode`: how.
    `per_row`: rows of feedback for each row of the batch. `draws`, `temperature`, `kl`: of the policy gradient, in mode
    `reward`.
    """

    term = "learning from language feedback: ILF, chain of hindsight"
    source = "Scheurer et al. 2023, Liu et al. 2023"
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0), Range(0.1, 5.0, log=True)] = 1.0
    mode: Annotated[Mode, Choices("imitation", "hindsight", "reward")] = "imitation"
    per_row: Annotated[int, Field(ge=1, le=16), Range(1, 4)] = 1
    draws: Annotated[int, Field(ge=2, le=64), Range(2, 8)] = 4
    temperature: Annotated[float, Field(gt=0.0, le=10.0), Range(0.5, 1.5)] = 1.0
    kl: Annotated[float, Field(ge=0.0), Range(0.0, 0.1)] = 0.04
    supervised: Annotated[float, Field(ge=0.0), Range(0.0, 1.0)] = 1.0
    _classes: bool = PrivateAttr(default=False)

    @property
    def logits(self) -> tuple[Logits, ...]:
        return ("classes", "tokens")

    @property
    def _gradient(self) -> PolicyGradient | None:
        if not self.strength or self.mode != "reward":
            return None
        return PolicyGradient(method="group_relative", draws=self.draws, temperature=self.temperature, kl=self.kl)

    @property
    def answers(self) -> bool:
        return self._gradient is not None

    @property
    def recalls(self) -> bool:
        return self._gradient is not None and self.kl > 0

    @property
    def passes(self) -> tuple[int, int]:
        if not self.strength:
            return PLAIN
        if (gradient := self._gradient) is None:
            return 1 + self.per_row, 1 + self.per_row
        forward, backward = gradient.passes(classes=self._classes)
        read = self.per_row * self._classes  # where answers are classes, the rows asked are read with the batch
        return 1 + self.per_row * forward + read, 1 + self.per_row * backward + read

    def for_classes(self, counts: Sequence[int]) -> LanguageFeedback:
        return of_classes(self)

    @property
    def beside(self) -> Beside | None:
        return Beside(source="feedback", per_row=self.per_row, parts=_READ[self.mode]) if self.strength else None

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.beside is None:
            return plain(forward, batch, task)
        if (gradient := self._gradient) is not None:
            return self._rewarded(forward, batch, task, gradient)
        (rows,) = batch.beside[self.beside]
        both = batch.join(rows)
        losses = task.row_losses(forward(both), both)
        hard, learnt = (part.mean() for part in losses.tensor_split([len(batch)]))
        return self._weighed(hard, learnt, {"feedback": learnt.detach()})

    def _rewarded(self, forward: Forward, batch: Batch, task: TaskLike, gradient: PolicyGradient) -> Loss:
        assert self.beside is not None
        chosen, rejected = batch.beside[self.beside]
        wrong = forward.read(rejected) * self.draws

        def likeness(said: Said) -> list[float]:
            triples = zip(said.answers, said.references, wrong, strict=True)
            return [worth(answer, better, worse) for answer, better, worse in triples]

        found = gradient(forward, batch, chosen, task, likeness)
        return self._weighed(found.hard, found.soft, {"reward": found.reward, "divergence": found.divergence})

    def _weighed(self, hard: Tensor, learnt: Tensor, parts: Mapping[str, Tensor]) -> Loss:
        total = self.supervised * hard + self.strength * learnt
        return Loss(total=total, parts={"supervised": hard.detach(), **parts})


def worth(answer: str, better: str, worse: str) -> float:
    """An answer's reward, where `worse` was revised to `better`."""
    return _like(answer, better) - (_like(answer, worse) if worse != better else 0.0)


def _like(answer: str, other: str) -> float:
    return answer_scores(answer, [other])[1]
