"""ROUGE F of an answer against its reference (Lin 2004), the reward of Paulus et al. 2018 for summaries."""

from __future__ import annotations

from typing import Annotated, Literal

from bothways.output_side.rewards import WordReward
from bothways.registry import REWARDS, Choices
from bothways.text_scores import rouge


@REWARDS.register("rouge")
class Rouge(WordReward):
    """`kind`: common words, pairs of words, or the longest common sequence. Chinese is cut into characters."""

    term = "ROUGE"
    source = "Lin 2004; as a reward, Paulus et al. 2018"

    kind: Annotated[Literal["rouge1", "rouge2", "rouge_l"], Choices("rouge1", "rouge2", "rouge_l")] = "rouge_l"

    def of(self, answer: str, reference: str) -> float:
        return rouge(answer, reference)[self.kind]
