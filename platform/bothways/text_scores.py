"""What is written, held against what should have been: exact match, ROUGE, BLEU and chrF as sums over rows.

Sums add up over batches and workers and are divided once. BLEU and chrF (sacrebleu) are those of the corpus, not means
of sentences; ROUGE (rouge-score) is the mean of the rows' F. Chinese is cut into characters before ROUGE and BLEU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from bothways.text import IDEOGRAPH, TextBatch

ROUGES = {"rouge1": "rouge1", "rouge2": "rouge2", "rouge_l": "rougeL"}
METRICS = ("exact_match", *ROUGES, "bleu", "chrf")
ORDER = 4
_CHRF = 18  # counts in hypothesis, reference and both, for 1 to 6 characters
WIDTH = 2 + len(ROUGES) + 2 * ORDER + 2 + _CHRF
"""How many sums there are."""


def text_sums(written: Sequence[str], references: Sequence[str]) -> list[float]:
    """The sums over some rows, (WIDTH,): rows, exact ones, each ROUGE, BLEU's counts, chrF's."""
    total = [0.0] * WIDTH
    for ours, theirs in zip(written, references, strict=True):
        total = [a + b for a, b in zip(total, _row(ours.strip(), theirs.strip()), strict=True)]
    return total


def text_metrics(sums: Sequence[float]) -> dict[str, float]:
    """`METRICS` from added-up sums, as shares from 0 to 1; empty when nothing was written."""
    from sacrebleu.metrics.bleu import BLEU

    rows, exact, *rest = sums
    if not rows:
        return {}
    rouges, rest = rest[: len(ROUGES)], rest[len(ROUGES) :]
    counts = [round(value) for value in rest]
    bleu = BLEU.compute_bleu(
        correct=counts[:ORDER],
        total=counts[ORDER : 2 * ORDER],
        sys_len=counts[2 * ORDER],
        ref_len=counts[2 * ORDER + 1],
        smooth_method="exp",
    )
    chrf = _chrf()._compute_f_score(counts[2 * ORDER + 2 :])
    return {
        "exact_match": exact / rows,
        **{name: value / rows for name, value in zip(ROUGES, rouges, strict=True)},
        "bleu": bleu.score / 100,
        "chrf": chrf / 100,
    }


def rouge(ours: str, theirs: str) -> dict[str, float]:
    """The F of each of `ROUGES` of a text against a reference."""
    found = _rouge(_chinese(theirs)).score(theirs, ours)
    return {name: float(found[key].fmeasure) for name, key in ROUGES.items()}


def sentence_bleu(ours: str, theirs: str) -> float:
    """BLEU of one text against a reference, from 0 to 1."""
    return float(_bleu(_chinese(theirs)).sentence_score(ours, [theirs]).score) / 100


def _chinese(text: str) -> bool:
    return bool((TextBatch.from_texts([text]).kinds == IDEOGRAPH).any())


def _row(ours: str, theirs: str) -> list[float]:
    bleu = _bleu(_chinese(theirs)).sentence_score(ours, [theirs])
    (chrf,) = _chrf()._extract_corpus_statistics([ours], [[theirs]])
    return [
        *(1.0, float(ours == theirs)),
        *rouge(ours, theirs).values(),
        *(*bleu.counts, *bleu.totals, bleu.sys_len, bleu.ref_len),
        *chrf,
    ]


class _Characters:
    """rouge-score's own words are of English letters only; these are words, and the characters of Chinese."""

    def tokenize(self, text: str) -> list[str]:
        return [token for token in TextBatch.from_texts([text.lower()]).tokens()[0] if token[0].isalnum()]


@cache
def _rouge(chinese: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGES.values()), tokenizer=_Characters() if chinese else None)


@cache
def _bleu(chinese: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="zh" if chinese else "13a", effective_order=True)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def answer_scores(answer: str, right: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of an answer's words (Rajpurkar et al. 2016), the best of several right ones; without any,
    the right answer is none. Case, punctuation and articles do not count; words of Chinese are its characters."""
    pairs = [(_answer_words(answer), _answer_words(one)) for one in right or [""]]
    return max(float(ours == theirs) for ours, theirs in pairs), max(_overlap(*pair) for pair in pairs)


def _answer_words(text: str) -> list[str]:
    return [word for word in _Characters().tokenize(text) if word not in ("a", "an", "the")]


def _overlap(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))
