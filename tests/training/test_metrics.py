"""Metrics as sums, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)

from bothways.metrics import classification_metrics, classification_sums, classification_width
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
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert found[name] == pytest.approx(score(LABELS, predicted, average="macro", zero_division=0))
    assert found["micro_f1"] == pytest.approx(f1_score(LABELS, predicted, average="micro"))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(LABELS, predicted))
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


@pytest.mark.parametrize(("classes", "scale"), [(2, 1.0), (2, 0.01), (3, 2.0), (8, 0.3), (60, 1.0)])
def test_ranking_is_scikit_learns_and_calibration_its_definition(classes: int, scale: float) -> None:
    draw = np.random.default_rng(classes)
    labels = np.concatenate([np.arange(classes), draw.integers(0, classes, 3000)])
    labels[labels == 1] *= draw.random((labels == 1).sum()) < 0.3 if classes == 2 else 1  # few of the second
    logits = scale * (draw.normal(size=(len(labels), classes)) + 1.5 * np.eye(classes)[labels])
    found = classification_metrics(classification_sums(torch.tensor(logits), torch.tensor(labels)))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    exact = roc_auc_score(labels, shares[:, 1] if classes == 2 else shares, multi_class="ovr")
    assert found["auroc"] == pytest.approx(exact, abs=2e-3)
    if scale >= 1 and classes < 60:
        assert found["auroc"] == pytest.approx(exact, abs=2e-4)
    sure, right = shares.max(1), shares.argmax(1) == labels
    bins = [(sure >= n / 15) & (sure < (n + 1) / 15) for n in range(15)]
    gaps = [part.mean() * abs(right[part].mean() - sure[part].mean()) for part in bins if part.any()]
    assert found["ece"] == pytest.approx(sum(gaps))  # Guo et al. 2017, equation 3
    if classes == 2:
        predicted = logits.argmax(1)
        assert found["precision"] == pytest.approx(precision_score(labels, predicted))
        assert found["recall"] == pytest.approx(recall_score(labels, predicted))
        assert found["f1"] == pytest.approx(f1_score(labels, predicted))
        assert found["mcc"] == pytest.approx(matthews_corrcoef(labels, predicted))


def test_what_cannot_be_ranked_has_a_score_all_the_same() -> None:
    logits, labels = torch.tensor([[800.0, -800.0], [3.0, 1.0]]), torch.tensor([0, 0])
    found = classification_metrics(classification_sums(logits, labels))
    assert (found["accuracy"], found["auroc"], found["mcc"], found["f1"]) == (1.0, 0.5, 0.0, 0.0)
    assert all(np.isfinite(value) for value in found.values())
    widths = [classification_width(classes) for classes in range(1, 400)]
    assert widths == sorted(set(widths))  # so that they tell how many classes there are
