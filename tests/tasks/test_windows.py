"""Texts longer than the model reads: what the windows hold, which is shown in training, and the best span of all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from bothways.batches.batching import Encode, of_like_length
from bothways.config import Experiment
from bothways.contracts import NO_LABEL, Batch
from bothways.predict import Predictor
from bothways.registry import TASKS
from bothways.tokenization import ModelReader
from tests import tiny
from tests.tasks.test_encoding import encode, ids, views
from tests.tasks.test_models import STEPS, placed, question_and_text

_ = (NO_LABEL, NO_LABEL)
FILM = "it was a very good film with music"
CHINESE = "小明昨天去了北京，天气很好。"


def task(**knobs: Any) -> Any:
    return TASKS.build({"name": "question_answering", "stride": 2, **knobs})


def test_windows_share_tokens_and_each_knows_what_it_has_of_the_answer() -> None:
    # [CLS] one [SEP] and [SEP] leave four of eight tokens: words 0 to 3, 2 to 5 and 4 to 7.
    texts = [["one", FILM], ["one", FILM], ["one", "a plot"], ["one", FILM]]
    table = encode(task(), "bert", max_length=8)(views(task(), texts, ["good film", "very good", "", ""]))
    assert table["label"].to_pylist() == [
        *([*_], [5, 6], [3, 4]),
        *([*_], [4, 5], [*_]),  # cut at the end of the first, at the beginning of the last
        [0, 0],
        *([0, 0], [0, 0], [0, 0]),
    ]
    assert task().begins(table).tolist() == [True, False, False, True, False, False, True, True, False, False]
    rows = [list(FILM.split()[start : start + 4]) for start in (0, 2, 4)]
    assert table["input_ids"].to_pylist()[:3] == [ids("[CLS]", "one", "[SEP]", *row, "[SEP]") for row in rows]
    references = table["reference"].to_pylist()
    assert [(one["text"], one["answers"]) for one in references[2:4]] == [(None, None), (FILM, ["very good"])]
    assert references[2]["starts"] == [-1, -1, -1, *(FILM.index(word) for word in rows[2]), -1]


def test_chinese_is_windowed_by_its_characters() -> None:
    path = tiny.masked_lm_dir(("谁", *CHINESE))
    how = Encode(tokenizer_path=path, task=task(), max_length=10, paired=True)
    table = how(views(task(), [["谁？", CHINESE]], ["北京"]))
    shown = [[CHINESE[a:b] for a, b in zip(row["starts"], row["stops"], strict=True) if a >= 0]
             for row in table["reference"].to_pylist()]  # fmt: skip
    assert ["".join(row) for row in shown] == ["小明昨天去", "天去了北京", "北京，天气", "天气很好。"]
    assert table["label"].to_pylist() == [[*_], [7, 8], [4, 5], [*_]]


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta", "xlnet"])
def test_windows_leave_nothing_out_and_a_long_question_is_cut(family: str) -> None:
    words = [f"w{number}" for number in range(30)]
    text = " ".join(words)
    columns = pa.chunked_array([["one two", text, ""]]), pa.chunked_array([[text, text, ""]])
    reader = ModelReader(path=tiny.model_dir(family), vocabulary=None, max_length=15, start=None)
    aligned, counts = reader.windows(3, *columns)
    assert counts.tolist() == [4, 9, 1]  # of 12 tokens, ten are the text's, or six beside a long question
    sizes = np.bincount(aligned.rows)
    assert sizes.max() == 15 and len(sizes) == counts.sum()
    for first, count, step in ((0, 4, 7), (4, 9, 3)):
        for window in range(count):
            mine = (aligned.rows == first + window) & (aligned.texts == 1)
            read = [text[a:b] for a, b in zip(aligned.starts[mine], aligned.stops[mine], strict=True)]
            assert read == words[window * step : window * step + len(read)]
        assert read[-1] == "w29"


def shown(seed: int = 0, **knobs: Any) -> list[tuple[list[int], list[int]]]:
    """In 300 epochs: the words of the window that is read, and the label."""
    how = encode(task(**knobs), "bert", max_length=8, seed=seed)
    found = how(views(task(), [["one", FILM]], ["good film"], copies=300))
    assert found.num_rows == 300 and "reference" not in found.column_names
    rows = zip(found["input_ids"].to_pylist(), found["label"].to_pylist(), strict=True)
    return [(row[3:-1], label) for row, label in rows]


def test_training_reads_a_window_with_the_answer_or_as_often_as_told_one_without() -> None:
    first, second, third = (ids(*FILM.split()[start : start + 4]) for start in (0, 2, 4))
    found, often = shown(), shown(elsewhere=0.5)
    counts = Counter((tuple(read), tuple(label)) for read, label in found)
    assert set(counts) == {(tuple(second), (5, 6)), (tuple(third), (3, 4))}
    assert 110 < counts[tuple(second), (5, 6)] < 190
    assert shown() == found != shown(seed=1)
    away = [label for read, label in often if read == first]
    assert 110 < len(away) < 190 and all(label == [0, 0] for label in away)
    assert all(other in (row, (first, [0, 0])) for row, other in zip(found, often, strict=True))


def test_rows_are_in_batches_whole_short_ones_first() -> None:
    texts = [["one", FILM], ["one", "a"], ["one", f"{FILM} a b"], ["one", "a plot"]]
    table = encode(task(), "bert", max_length=8)(views(task(), texts, ["", "", "", ""]))
    assert table.num_rows == 3 + 1 + 4 + 1

    class Four(type(task())):  # type: ignore[misc]
        evaluation_rows = 4

    tables, order = of_like_length(table, Four(stride=2))
    texts_of = [[one["text"] for one in part["reference"].to_pylist()] for part in tables]
    assert order.tolist() == [1, 3, 0, 2]
    assert texts_of == [["a", "a plot"], [FILM, None, None], [f"{FILM} a b", None, None, None]]
    assert of_like_length(table.slice(0, 0), task())[1].tolist() == []


def batch(labels: list[tuple[int, int]]) -> Batch:
    """Two rows of four tokens a window, of which the last three are the text's: one in two windows, one in one."""
    places = [([-1, 0, 2, 4], [-1, 1, 3, 5]), ([-1, 4, 6, 8], [-1, 5, 7, 9]), ([-1, 0, 2, 4], [-1, 1, 3, 5])]
    texts = [("a b c d e", ["d"]), (None, None), ("x y z", [])]
    return Batch(
        inputs={"attention_mask": torch.ones(3, 4, dtype=torch.int64)},
        labels=torch.tensor(labels),
        is_copy=torch.zeros(3, dtype=torch.bool),
        references=tuple(
            {"text": text, "answers": answers, "starts": starts, "stops": stops}
            for (text, answers), (starts, stops) in zip(texts, places, strict=True)
        ),
    )


LOGITS = torch.tensor(
    [
        [[0.0, 9.0, 0.0, 0.0], [0.0, 9.0, 0.0, 0.0]],  # "a" by 18, sure in its own window
        [[8.0, 0.0, 9.5, 9.0], [8.0, 0.0, 9.5, 9.0]],  # "d" by 19, unsure; no answer by 16
        [[4.0, 1.0, 2.0, 3.0], [4.0, 1.0, 2.0, 3.0]],  # "z" by 6; no answer by 8
    ]
)


def test_the_answer_is_the_best_span_of_all_windows_by_the_sum_of_its_logits() -> None:
    rows = batch([_, (2, 2), (0, 0)])
    first, second = task().predictions(LOGITS, rows, ())
    assert (first.label, first.value) == ("d", {"text": "d", "start": 6, "stop": 7})
    every = LOGITS[:2, 0].double().exp().sum().item()
    assert first.probability == pytest.approx(float(np.exp(9.5) / every) ** 2)
    assert second.label == "z"
    assert task().row_scores(LOGITS, rows).tolist() == [1, 0]
    found = task().metrics(task().sums(LOGITS, rows))
    one = -np.log(np.exp(9.5) / every)
    other = -np.log(np.exp(4) / np.exp([4, 1, 2, 3]).sum())
    assert found == pytest.approx({"exact_match": 0.5, "f1": 0.5, "log_loss": (one + other) / 2})


def test_an_answer_in_two_windows_has_the_probability_of_both_and_one_in_none_no_loss() -> None:
    loss = task().metrics(task().sums(LOGITS[:2], batch([(3, 3), (1, 1), (0, 0)]).slice(0, 2)))["log_loss"]
    every = LOGITS[:2, 0].double().exp().sum().item()
    assert loss == pytest.approx(-np.log((np.exp(0.0) + np.exp(0.0)) / every))
    sums = task().sums(LOGITS[:2], batch([_, _, (0, 0)]).slice(0, 2))
    assert sums.tolist()[2:] == [1.0, 0.0, 0.0]


def test_there_is_no_answer_where_every_window_says_so() -> None:
    maybe = task(unanswerable=True)
    first, second = maybe.predictions(LOGITS, batch([_, (2, 2), (0, 0)]), ())
    assert first.label == "d"  # "no answer" of a window is no reason against another
    assert second.label == "" and second.probability == pytest.approx(float(LOGITS[2, 0].softmax(0)[0]) ** 2)
    sure = LOGITS.clone()
    sure[:2, :, 0] = 9.6
    assert maybe.predictions(sure, batch([_, (2, 2), (0, 0)]), ())[0].label == ""


def test_a_stride_that_leaves_no_room_and_windows_there_are_none_of_are_refused() -> None:
    def made(**knobs: Any) -> Experiment:
        return tiny.experiment(data={"pair": "pair"}, task={"name": "question_answering", **knobs})

    assert made(stride=8, elsewhere=0.5).task.stride == 8
    with pytest.raises(ValueError, match=r"stride 9: windows of model\.max_length 24 .* share 8 tokens at most"):
        made(stride=9)
    with pytest.raises(ValueError, match=r"there is only one window: set task\.stride, or leave it out"):
        made(elsewhere=0.5)
    assert made().spec()["task"] == {"name": "question_answering", "longest": 30, "unanswerable": False}


@pytest.mark.slow
def test_a_model_that_reads_windows_finds_answers_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = pa.list_(pa.struct([("start", pa.int64()), ("stop", pa.int64())]))
    data = question_and_text(tiny.dataset_of(placed, kind))
    reached = {}
    for stride in (0, 2):
        experiment = tiny.experiment(
            task={"name": "question_answering", "stride": stride},
            data={"pair": "pair"},
            model={"dropout": 0.0, "max_length": 13},  # seven words of up to twelve
            optim=STEPS,
        )
        trial = tiny.trial(experiment, tmp_path / str(stride), data=data)
        list(trial.reports())
        scored = trial.score_test()
        assert len(scored.hits) == data.test.num_rows
        assert np.mean(scored.hits) == pytest.approx(scored.metrics["exact_match"])
        texts = [data.test[column].to_pylist() for column in ("text", "pair")]
        found = Predictor(trial.save())(*texts)
        right = [one.label == tiny.signal(text) for one, text in zip(found, texts[1], strict=True)]
        assert [float(one) for one in right] == list(scored.hits)
        assert all(one.value is None or text[one.value["start"] : one.value["stop"]] == one.label
                   for one, text in zip(found, texts[1], strict=True))  # fmt: skip
        reached[stride] = scored.metrics["exact_match"]
    assert reached[2] > max(0.5, reached[0])
    book = " ".join([*tiny.OTHER * 50, "lovely", *tiny.OTHER * 5])  # of more windows than are read at once
    reader = Predictor(tmp_path / "2" / "model")
    (found,) = reader(["what is it"], [book])
    monkeypatch.setattr("bothways.training.forward.MOST_ROWS", 10**6)
    (whole,) = reader(["what is it"], [book])
    assert (found.label, found.value) == (whole.label, whole.value)
    assert found.probability == pytest.approx(whole.probability, rel=1e-4)
