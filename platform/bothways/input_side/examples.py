"""The labelled training rows themselves, for transforms that show some of them to a model or judge what one wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bothways.input_side.lookup import fold, word_hashes
from bothways.seeding import F64, keys
from bothways.text import Ints, Segmentation, TextBatch

MOST = 20_000
"""Rows a classifier is fitted on: the first ones."""
_FEATURES = 1 << 18
_WEIGHT = 10.0  # of the data beside the prior: C of scikit-learn


@dataclass(frozen=True, eq=False)
class Examples:
    """N training texts and the numbers of their labels, int64 (N,); picklable. What is made of them is made where it
    is asked for."""

    texts: Sequence[str]
    labels: Ints
    segmentation: Segmentation = "character"

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("texts", "labels", "segmentation")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def _known(self) -> dict[str, int]:
        """Text → label; -1 where rows of the same text disagree."""
        known: dict[str, int] = {}
        for text, label in zip(self.texts, self.labels.tolist(), strict=True):
            known[text] = label if known.get(text, label) == label else -1
        return known

    def __contains__(self, text: str) -> bool:
        return text in self._known

    def labels_of(self, texts: Sequence[str]) -> Ints:
        """The label of each text that is a training row, -1 for any other."""
        return np.array([self._known.get(text, -1) for text in texts], dtype=np.int64)

    @cached_property
    def rows_of(self) -> dict[int, Ints]:
        """Label → its rows."""
        return {label: np.flatnonzero(self.labels == label) for label in np.unique(self.labels).tolist()}

    @cached_property
    def _judge(self) -> tuple[F64, Any]:
        """Inverse document frequencies and a logistic regression (scikit-learn's, L-BFGS) over tf-idf."""
        from sklearn.linear_model import LogisticRegression

        texts, labels = self.texts[:MOST], self.labels[:MOST]
        counts = _counts(texts, self.segmentation)
        idf = np.log((1.0 + len(texts)) / (1.0 + np.bincount(counts.indices, minlength=_FEATURES))) + 1.0
        return idf, LogisticRegression(C=_WEIGHT, max_iter=300).fit(_normed(counts, idf), labels)

    def confidence(self, texts: Sequence[str], labels: Ints) -> F64:
        """The probability of each text's label by a classifier of the training rows, (R,); 0 for an unknown label."""
        if not len(texts):
            return np.zeros(0)
        if np.unique(self.labels[:MOST]).size < 2:
            return np.ones(len(texts))
        idf, judge = self._judge
        shares = judge.predict_proba(_normed(_counts(texts, self.segmentation), idf))
        column = np.searchsorted(judge.classes_, labels)
        found = judge.classes_[np.minimum(column, len(judge.classes_) - 1)] == labels
        return np.where(found, shares[np.arange(len(texts)), np.minimum(column, len(judge.classes_) - 1)], 0.0)


def _counts(texts: Sequence[str], segmentation: Segmentation) -> Any:
    """Words and pairs of neighbours of each text, hashed, as a sparse matrix (N, `_FEATURES`) of 1 + log counts."""
    from scipy.sparse import csr_matrix

    batch = TextBatch.from_texts(texts, None, segmentation)
    tokens = np.flatnonzero(batch.is_word)
    codes, lengths = batch.words(tokens)
    words, rows = word_hashes(fold(codes), lengths), batch.rows_of(tokens)
    beside = np.flatnonzero(rows[1:] == rows[:-1])
    pairs = keys(words[beside], words[beside + 1]) if beside.size else words[:0]
    column = (np.concatenate([words, pairs]) % np.uint64(_FEATURES)).astype(np.int64)
    row = np.concatenate([rows, rows[beside]])
    matrix = csr_matrix((np.ones(row.size), (row, column)), shape=(len(texts), _FEATURES))
    matrix.sum_duplicates()
    matrix.data = 1.0 + np.log(matrix.data)
    return matrix


def _normed(counts: Any, idf: npt.NDArray[np.float64]) -> Any:
    """tf-idf vectors of length 1."""
    matrix = counts.copy()
    matrix.data *= idf[matrix.indices]
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
    matrix.data /= np.repeat(np.maximum(norms, 1e-12), np.diff(matrix.indptr))
    return matrix
