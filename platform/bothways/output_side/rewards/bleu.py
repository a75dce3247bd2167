"""BLEU of an answer (Papineni et al. 2002), that of a single sentence: orders that it is too short for are left out,
and counts of 0 are smoothed (Chen & Cherry 2014)."""

from __future__ import annotations

from bothways.output_side.rewards import WordReward
from bothways.registry import REWARDS
from bothways.text_scores import sentence_bleu


@REWARDS.register("bleu")
class Bleu(WordReward):
    """From 0 to 1. Chinese is cut into characters."""

    term = "sentence BLEU"
    source = "Papineni et al. 2002; smoothing, Chen & Cherry 2014"

    def of(self, answer: str, reference: str) -> float:
        return sentence_bleu(answer, reference)
