"""Data mixing: how many rows of a batch come from other domains, and which (`config.SampleMixing`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bothways import seeding
from bothways.batches import planning
from bothways.batches.planning import I64, Order, Plan
from bothways.config import Data, Experiment
from bothways.config.domains import SampleMixing
from bothways.seeding import F64

if TYPE_CHECKING:
    from bothways.data import Dataset

SURE = 1e-3
"""Odds are as if the classifier gave no domain less than this probability: one row shall not stand for all."""
_FOLDS = 5


Remember = Callable[[Hashable, Callable[[], F64]], F64]


def plan(
    experiment: Experiment,
    dataset: Dataset,
    lengths: Callable[[str], I64],
    classes: Callable[[str], I64 | None],
    remember: Remember,
) -> Plan:
    """The labelled views of each step: those of the training rows, then those of other domains.

    In the table that they are taken from, the rows of `mixed` follow those of `train`. `lengths`, `classes`: of the
    rows of either. `remember`: gives what it gave for the same key before, or else makes it.
    """
    side, optim = experiment.input, experiment.optim
    others = rows(side.sample_mixing, optim.batch_size)
    trained = lengths("train")
    balanced = optim.sampling == "balanced"
    own = planning.plan(
        trained,
        side.augment,
        batch_size=optim.batch_size - others,
        steps=optim.steps,
        seed=experiment.seed,
        order=Order(classes=classes("train"), balanced=balanced),
    )
    if not others:
        return own
    odds = None
    if side.sample_mixing.weighting == "domain_classifier":
        data = experiment.data
        key = ("domain odds", dataset.digest, data.unlabelled_source, data.language)
        odds = remember(key, lambda: domain_odds(dataset, data))
    second = planning.plan(
        lengths("mixed"),
        side.augment,
        batch_size=others,
        steps=optim.steps,
        seed=seeding.integer(experiment.seed, "mixed"),
        order=Order(
            classes=classes("mixed"),
            balanced=balanced,
            weights=weights(side.sample_mixing, [table.num_rows for table in dataset.mixed], odds),
        ),
    )
    return planning.joined(own, replace(second, row=second.row + len(trained)))


def rows(mixing: SampleMixing, batch_size: int) -> int:
    """How many of a batch's rows are of other domains."""
    return min(max(1, round(mixing.weight * batch_size)), batch_size - 1) if mixing.weight else 0


def weights(mixing: SampleMixing, sizes: Sequence[int], odds: F64 | None) -> F64 | None:
    """In proportion to which the rows of sources of `sizes` rows are drawn, (N,); None: all alike.

    `odds` (N,): of every row's being of our own domain, within its source; None: all alike.
    """
    return tempered(sizes, mixing.temperature, odds)


def tempered(sizes: Sequence[int], temperature: float, odds: F64 | None = None) -> F64 | None:
    """The same for a temperature; see `SampleMixing`."""
    if temperature == 1 and odds is None:
        return None
    n = np.array(sizes, np.float64)
    part = n ** (1 / temperature)
    within = np.ones(sum(sizes)) if odds is None else odds
    source = np.repeat(np.arange(len(sizes)), sizes)
    return np.asarray(part[source] * within / np.bincount(source, weights=within)[source])


def domain_odds(dataset: Dataset, data: Data) -> F64:
    """The odds that each row of `dataset.mixed` is of our domain, to six digits, (N,): that of the training rows, or of
    `data.unlabelled_source` if there is one.

    By logistic regression on tf-idf of words (Chinese: characters) and pairs of them; both domains weigh the same, and
    a row is judged by a classifier that has not learnt from it.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import, and few trainings ask for it
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    ours = dataset.unlabelled if data.unlabelled_source else dataset.train
    texts = [text for table in (ours, *dataset.mixed) for text in table["text"].to_pylist()]
    is_ours = np.arange(len(texts)) < ours.num_rows
    folds = min(_FOLDS, ours.num_rows, len(texts) - ours.num_rows)
    if folds < 2:
        return np.ones(len(texts) - ours.num_rows)
    unit = "char" if data.language == "zh" else "word"
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
