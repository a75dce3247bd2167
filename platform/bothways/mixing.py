"""Data mixing: how many rows of a batch come from other domains, and which (`config.SampleMixing`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from bothways.config import Language, SampleMixing
from bothways.seeding import F64

SURE = 1e-3
"""Odds are as if the classifier gave no domain less than this probability: one row shall not stand for all."""
_FOLDS = 5


def rows(mixing: SampleMixing, batch_size: int) -> int:
    """How many of a batch's rows are of other domains."""
    return min(max(1, round(mixing.weight * batch_size)), batch_size - 1) if mixing.weight else 0


def weights(mixing: SampleMixing, sizes: Sequence[int], odds: F64 | None) -> F64 | None:
    """In proportion to which the rows of sources of `sizes` rows are drawn, (N,); None: all alike.

    `odds` (N,): of every row's being of our own domain, within its source; None: all alike.
    """
    if mixing.temperature == 1 and odds is None:
        return None
    n = np.array(sizes, np.float64)
    part = n ** (1 / mixing.temperature)
    within = np.ones(sum(sizes)) if odds is None else odds
    source = np.repeat(np.arange(len(sizes)), sizes)
    return np.asarray(part[source] * within / np.bincount(source, weights=within)[source])


def domain_odds(ours: pa.Table, others: Sequence[pa.Table], language: Language) -> F64:
    """The odds that each row of `others` is of the domain of `ours`, to six digits, (N,).

    By logistic regression on tf-idf of words (Chinese: characters) and pairs of them; both domains weigh the same, and
    a row is judged by a classifier that has not learnt from it.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import, and few trainings ask for it
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    texts = [text for table in (ours, *others) for text in table["text"].to_pylist()]
    is_ours = np.arange(len(texts)) < ours.num_rows
    folds = min(_FOLDS, ours.num_rows, len(texts) - ours.num_rows)
    if folds < 2:
        return np.ones(len(texts) - ours.num_rows)
    unit = "char" if language == "zh" else "word"
    features = TfidfVectorizer(analyzer=unit, ngram_range=(1, 2), sublinear_tf=True)
    judged = cross_val_predict(
        LogisticRegression(class_weight="balanced", max_iter=1000),
        features.fit_transform(texts),
        is_ours,
        cv=StratifiedKFold(folds),
        method="predict_proba",
    )
    sure = judged[~is_ours, 1].clip(SURE, 1 - SURE)
    odds: F64 = np.asarray(sure / (1 - sure), np.float64)
    return np.round(odds, 6)
