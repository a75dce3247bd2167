"""Scores: sums of parts are sums of the whole, and what they are divided into is what the libraries say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor

from bothways.contracts import NO_LABEL, Batch
from bothways.registry import TASKS
from bothways.text_scores import METRICS, answer_scores, text_metrics, text_sums

OURS = ["the cat sat on the mat .", "there is a dog in the big garden", "no", "", "a b c d e f"]
THEIRS = ["the cat is on the mat .", "a dog is in the big garden now", "no", "something", "a b c d e f"]


def test_scores_of_texts_are_those_of_the_libraries_over_the_corpus() -> None:
    whole = text_sums(OURS, THEIRS)
    parts = [a + b for a, b in zip(text_sums(OURS[:2], THEIRS[:2]), text_sums(OURS[2:], THEIRS[2:]), strict=True)]
    assert parts == pytest.approx(whole)
    found = text_metrics(whole)
    assert tuple(found) == METRICS
    assert found["exact_match"] == 0.4
    assert found["bleu"] == pytest.approx(BLEU().corpus_score(OURS, [THEIRS]).score / 100)
    assert found["chrf"] == pytest.approx(CHRF().corpus_score(OURS, [THEIRS]).score / 100)
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = [rouge.score(theirs, ours) for ours, theirs in zip(OURS, THEIRS, strict=True)]
    for ours, name in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")):
        assert found[ours] == pytest.approx(np.mean([row[name].fmeasure for row in rows]))
    assert text_metrics([0.0] * len(whole)) == {}


def test_chinese_is_cut_before_it_is_scored() -> None:
    ours, theirs = "我喜欢这部电影", "我不喜欢这部电影"
    found = text_metrics(text_sums([ours], [theirs]))
    assert found["rouge1"] == pytest.approx(2 * 7 / 15)
    assert found["rouge2"] == pytest.approx(2 * 5 / 13)
    assert found["bleu"] == pytest.approx(BLEU(tokenize="zh").corpus_score([ours], [[theirs]]).score / 100)
    assert found["bleu"] > 0.5


def test_answers_are_compared_by_their_words() -> None:
    assert answer_scores("The Eiffel Tower.", ["eiffel tower", "a tower"]) == (1, 1)
    assert answer_scores("Eiffel", ["Eiffel Tower"]) == (0, pytest.approx(2 / 3))
    assert answer_scores("", []) == (1, 1)
    assert answer_scores("x", []) == (0, 0)
    assert answer_scores("北京市", ["北京"]) == (0, pytest.approx(0.8))


def batch(labels: Tensor) -> Batch:
    return Batch(inputs={}, labels=labels, is_copy=torch.zeros(len(labels), dtype=torch.bool))


def test_a_rows_loss_is_the_mean_over_its_own_labels() -> None:
    task = TASKS.build("token_classification")
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]], [[0.0, 3.0], [1.0, 0.0], [0.0, 0.0]]])
    rows = batch(torch.tensor([[0, 0, NO_LABEL], [1, NO_LABEL, NO_LABEL]]))
    nll = [-np.log(np.exp(2) / (np.exp(2) + 1)), -np.log(1 / (1 + np.e)), -np.log(np.exp(3) / (np.exp(3) + 1))]
    assert task.row_losses(logits, rows).tolist() == pytest.approx([(nll[0] + nll[1]) / 2, nll[2]])
    assert task.row_scores(logits, rows).tolist() == [0.5, 1.0]
    found = task.metrics(task.sums(logits, rows))
    assert found == pytest.approx({"accuracy": 2 / 3, "macro_f1": 2 / 3, "log_loss": sum(nll) / 3})


def test_numbers_are_scored_as_numpy_does() -> None:
    task = TASKS.build({"name": "regression", "mean": 5, "scale": 2})
    draw = np.random.default_rng(0)
    y = draw.normal(size=40) * 3 + 1000
    z = (y - 5) / 2 + draw.normal(size=40)
    p = z * 2 + 5
    logits, rows = torch.tensor(z[:, None], dtype=torch.float64), batch(torch.tensor(y))
    found = task.metrics(task.sums(logits, rows))
    assert found["rmse"] == pytest.approx(np.sqrt(((p - y) ** 2).mean()))
    assert found["mae"] == pytest.approx(np.abs(p - y).mean())
    assert found["pearson"] == pytest.approx(np.corrcoef(p, y)[0, 1])
    assert found["r2"] == pytest.approx(1 - ((p - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    alike = batch(torch.full((40,), 1000.0))
    assert task.metrics(task.sums(logits, alike))["pearson"] == 0


def test_several_labels_are_scored_as_sklearn_does() -> None:
    from sklearn.metrics import f1_score, log_loss

    draw = np.random.default_rng(1)
    z, y = draw.normal(size=(30, 4)), draw.random((30, 4)) < 0.4
    task = TASKS.build("multi_label")
    found = task.metrics(task.sums(torch.tensor(z), batch(torch.tensor(y, dtype=torch.float64))))
    assert found["micro_f1"] == pytest.approx(f1_score(y, z >= 0, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(y, z >= 0, average="macro"))
    assert found["exact_match"] == (y == (z >= 0)).all(axis=1).mean()
    assert found["log_loss"] == pytest.approx(log_loss(y.ravel(), 1 / (1 + np.exp(-z.ravel()))))


def case(name: str) -> tuple[Any, Tensor, Batch, int]:
    draw = torch.Generator().manual_seed(0)
    task = TASKS.build(name)
    tokens, classes = torch.randint(0, 3, (6, 4), generator=draw), 3
    logits, labels, references = torch.randn(6, 4, 3, generator=draw), tokens, ()
    if name == "classification":
        logits, labels = logits[:, 0], tokens[:, 0]
    if name == "multi_label":
        logits, labels = logits[:, 0], (tokens[:, :3] > 1).float()
    if name == "regression":
        logits, labels = logits[:, 0, :1], tokens[:, 0].float()
    if name == "question_answering":
        one = {"text": "abcd", "answers": ["b"], "starts": [0, 1, 2, 3], "stops": [1, 2, 3, 4]}
        logits, labels, references = torch.randn(6, 2, 4, generator=draw), tokens[:, :2], (one,) * 6
    mask = {"attention_mask": torch.ones(6, 4, dtype=torch.int64)}
    rows = Batch(inputs=mask, labels=labels, is_copy=torch.zeros(6, dtype=torch.bool), references=references)
    return task, logits, rows, classes


@pytest.mark.parametrize("name", TASKS.names())
def test_every_tasks_sums_add_up_and_have_their_width(name: str) -> None:
    task, logits, rows, classes = case(name)
    whole = task.sums(logits, rows)
    assert whole.dtype == torch.float64
    assert whole.shape == (task.width(classes),)
    parts = task.sums(logits[:2], rows.slice(0, 2)) + task.sums(logits[2:], rows.slice(2, 6))
    assert torch.allclose(parts, whole)
    found = task.metrics(whole)
    assert set(found) == set(task.directions) >= set(task.ranking)
    assert task.row_losses(logits, rows).shape == task.row_scores(logits, rows).shape == (6,)
    with pytest.raises(ValueError, match="no rows"):
        task.metrics(torch.zeros_like(whole))
