"""What objectives that learn from answers share: the log-probability of an answer, and the policy gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from bothways.contracts import NO_LABEL, Batch, Forward, Said, TaskLike
from bothways.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from bothways.output_side.objectives import Objective

Method = Literal["reinforce", "self_critical", "group_relative"]


def token_log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """log p of every token of the answers (K, T), 0 where there is none; of classes (K,), as one token (K, 1)."""
    if labels.dim() == 1:
        logits, labels = logits[:, None], labels[:, None]
    real = labels != NO_LABEL
    found = logits.log_softmax(dim=-1).gather(-1, labels.clamp_min(0)[..., None]).squeeze(-1)
    return found * real


Learner = TypeVar("Learner", bound="Objective")


def of_classes(objective: Learner) -> Learner:
    """The objective, knowing that answers are classes: what it costs depends on that."""
    found = objective.model_copy()
    found._classes = True  # type: ignore[attr-defined]
    return found


class Rewarded(NamedTuple):
    """What a step of policy gradient is: the supervised loss of the batch (`hard`), what to minimise (`soft`), the mean
    reward of the answers, and the estimated KL to the model before training; scalars."""

    hard: Tensor
    soft: Tensor
    reward: Tensor
    divergence: Tensor


@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """E[r] over the model's own answers is raised along sum_k A_k grad log p(answer_k), A = r - baseline.

    - `reinforce` (Williams 1992): the baseline is the mean reward of the row's other draws, which leaves the gradient
      unbiased (Kool et al. 2019).
    - `self_critical` (Rennie et al. 2017): that of the answer without drawing, the likeliest one token by token.
    - `group_relative` (Shao et al. 2024): the mean of the row's draws, A divided by their standard deviation, log p a
      mean over an answer's tokens instead of a sum. There is one step for each draw, so the ratio of the probabilities
      before and after is 1, and nothing to clip.

    `kl` x an estimate of KL(model || model before training) is added: per token e^d - d - 1, d the difference of their
    log-probabilities (Schulman 2020, as in Shao et al. 2024). `draws`: answers to each row, at `temperature`, which is
    the temperature of log p too.
    """

    method: Method
    draws: int
    temperature: float
    kl: float

    def passes(self, *, classes: bool) -> tuple[int, int]:
        """Over the rows asked beside a pass over the batch, (forward, backward). A written answer counts as a pass; of
        classes, one pass gives all answers."""
        each, beside = (1, 0) if classes else (self.draws, self.draws)
        return beside + each * (1 + (self.kl > 0)) + (self.method == "self_critical"), beside

    def __call__(
        self,
        forward: Forward,
        batch: Batch,
        asked: Batch,
        task: TaskLike,
        reward: Callable[[Said], Sequence[float]],
    ) -> Rewarded:
        """Answers to the rows `asked`, of the batch or beside it, drawn, rewarded and learnt from, in one forward pass
        together with the batch."""
        drawn = forward.draw(asked, self.draws, self.temperature)
        rewards = _table(reward(drawn.said), asked)
        greedy = None
        if self.method == "self_critical":
            greedy = _table(reward(forward.draw(asked, 1, 0.0).said), asked)[0]
        classes = task.logits == "classes"  # whose answers all have the same input
        read = asked if classes else drawn.answered
        both = batch if read is batch else batch.join(read)
        logits = forward(both)
        hard = task.row_losses(logits[: len(batch)], both.slice(0, len(batch))).mean()
        times = self.draws if classes else 1
        rows = both.slice(len(both) - len(read), len(both))
        labels = drawn.answered.labels if classes else rows.labels
        ours = self._log_probabilities(logits[len(both) - len(read) :], labels, times)
        before = self._log_probabilities(forward.reference(rows), labels, times) if self.kl else None
        soft, divergence = self.loss(ours, labels, self.advantages(rewards, greedy), before)
        return Rewarded(hard, soft, rewards.mean(), divergence)

    def _log_probabilities(self, logits: Tensor, labels: Tensor, times: int) -> Tensor:
        each = logits.repeat(times, *[1] * (logits.dim() - 1))
        return token_log_probabilities(each / self.temperature, labels)

    def advantages(self, rewards: Tensor, greedy: Tensor | None) -> Tensor:
        """Of rewards (K, N); `greedy` (N,): those of the likeliest answers."""
        if self.method == "self_critical":
            assert greedy is not None
            return rewards - greedy
        centred = rewards - rewards.mean(dim=0)
        if self.method == "reinforce":
            return centred * self.draws / (self.draws - 1)
        return centred / (rewards.std(dim=0, correction=0) + 1e-4)

    def loss(self, ours: Tensor, labels: Tensor, advantages: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """What to minimise, a mean over rows and draws, and the estimated KL, a mean over them of the mean over tokens.

        `ours`, `before`: log p of the tokens of the answers `labels`, (K x N, T), now and before training.
        `advantages`: (K, N).
        """
        tokens = torch.ones_like(labels) if labels.dim() == 1 else (labels != NO_LABEL).sum(dim=1).clamp_min(1)
        whole = ours.sum(dim=1) / (tokens if self.method == "group_relative" else 1)
        value = -(advantages.flatten() * whole).mean()
        if before is None:
            return value, torch.zeros_like(value)
        apart = before - ours
        divergence = ((apart.exp() - apart - 1).sum(dim=1) / tokens).mean()
        return value + self.kl * divergence, divergence.detach()


def _table(rewards: Sequence[float], asked: Batch) -> Tensor:
    """(K, N) from a reward for each answer to N rows, draw after draw."""
    return torch.tensor(rewards, dtype=torch.float32, device=asked.labels.device).view(-1, len(asked))
