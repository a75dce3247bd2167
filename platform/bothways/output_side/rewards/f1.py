"""F1 of the words of an answer and of its reference (Rajpurkar et al. 2016), as answers to questions are scored."""

from __future__ import annotations

from bothways.output_side.rewards import WordReward
from bothways.registry import REWARDS
from bothways.text_scores import answer_scores


@REWARDS.register("f1")
class F1(WordReward):
    """Case, punctuation and articles do not count; words of Chinese are its characters."""

    term = "F1 of words"
    source = "Rajpurkar et al. 2016"

    def of(self, answer: str, reference: str) -> float:
        return answer_scores(answer, [reference])[1]
