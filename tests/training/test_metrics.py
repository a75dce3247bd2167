"""Metrics as sums, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from bothways.metrics import classification_metrics, classification_sums
from bothways.tasks.classification import Classification

DRAW = np.random.default_rng(0)
LABELS = DRAW.choice([0, 1, 3], 101)  # class 2 has no row, class 4 is not even predicted
LOGITS = DRAW.normal(size=(101, 5)) + 2 * np.eye(5)[LABELS] - 9 * np.eye(5)[4]


def sums(start: int, stop: int) -> torch.Tensor:
    return classification_sums(torch.tensor(LOGITS[start:stop]), torch.tensor(LABELS[start:stop]))


def test_metrics_are_scikit_learns() -> None:
    found = classification_metrics(sums(0, 101))
    predicted = LOGITS.argmax(1)
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    assert 4 not in predicted
    assert 2 in predicted
    assert found["accuracy"] == pytest.approx(accuracy_score(LABELS, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(LABELS, predicted, average="macro"))
    assert found["log_loss"] == pytest.approx(log_loss(LABELS, probabilities, labels=range(5)))


def test_unequal_shares_add_up_to_the_whole() -> None:
    apart = sums(0, 7) + sums(7, 7) + sums(7, 101)
    torch.testing.assert_close(apart, sums(0, 101), rtol=1e-12, atol=0)
    means = (classification_metrics(sums(0, 7))["accuracy"] + classification_metrics(sums(7, 101))["accuracy"]) / 2
    assert classification_metrics(apart)["accuracy"] != pytest.approx(means)


def test_no_rows_at_all_is_an_error_and_not_a_score() -> None:
    with pytest.raises(ValueError, match="no rows"):
        classification_metrics(sums(0, 0))


def test_the_task_says_for_each_metric_which_way_is_better() -> None:
    task = Classification()
    assert set(task.directions) == set(classification_metrics(sums(0, 101)))
    assert set(task.ranking) <= set(task.directions)
