"""Exact match: 1 for an answer that is the label, else 0."""

from __future__ import annotations

from bothways.output_side.rewards import WordReward
from bothways.registry import REWARDS


@REWARDS.register("accuracy")
class Accuracy(WordReward):
    """Case and white space at the ends do not count."""

    term = "exact match, 0-1 reward"
    source = "-"

    def of(self, answer: str, reference: str) -> float:
        return float(answer.strip().lower() == reference.strip().lower())
