"""Labels of every task, from a source's cells to the dataset's columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bothways import data
from bothways.config import Data, Experiment, Pipeline
from bothways.registry import TASKS
from bothways.task_contract import Unusable

SQUAD = {"text": ["Paris"], "answer_start": [10]}
CELLS: list[tuple[dict[str, Any], list[Any], Any, Any]] = [
    ({"name": "multi_label"}, ["t"], " b, a,b ,", '["a", "b"]'),
    ({"name": "multi_label"}, ["t"], ["a", "b,c"], '["a", "b,c"]'),
    ({"name": "multi_label"}, ["t"], None, "[]"),
    ({"name": "multi_label", "separator": "|"}, ["t"], "a,b|c", '["a,b", "c"]'),
    ({"name": "regression"}, ["t"], "3", "3.0"),
    ({"name": "regression"}, ["t"], 2.5, "2.5"),
    ({"name": "token_classification"}, [["Ada", "sleeps", "."]], "B-PER O O", None),
    ({"name": "question_answering"}, ["Where?", "She is in Paris."], SQUAD, "[[10, 15]]"),
    ({"name": "question_answering"}, ["Where?", "She is in Paris."], json.dumps(SQUAD), "[[10, 15]]"),
    ({"name": "question_answering"}, ["Where?", "She is in Paris."], "in Paris", "[[7, 15]]"),
    ({"name": "question_answering"}, ["谁？", "她在北京。"], "北京", "[[2, 4]]"),
    ({"name": "question_answering"}, ["Where?", "She is in Paris."], {"text": [], "answer_start": []}, "[]"),
    ({"name": "seq2seq"}, ["t"], " ein Ziel ", "ein Ziel"),
]
REFUSED: list[tuple[str, list[Any], Any, str]] = [
    ("classification", ["t"], ["a"], "a list where a label belongs"),
    ("multi_label", ["t"], {"a": 1}, "no list of names"),
    ("regression", ["t"], "good", "no number"),
    ("regression", ["t"], "inf", "no number"),
    ("token_classification", [["a", "b"]], ["O"], "2 words, but 1 tags"),
    ("token_classification", [["a", " "]], ["O", "O"], "an empty one among the words"),
    ("token_classification", ["a", "b"], ["O"], "a pair of texts"),
    ("question_answering", ["q", "a b a"], "a", "more than once"),
    ("question_answering", ["q", "a b a"], "c", "does not stand in the text"),
    ("question_answering", ["q", "a b a"], {"text": ["b"], "answer_start": [1]}, "does not stand in the text"),
    ("question_answering", ["q", "a b a"], {"text": ["b"]}, "neither an answer"),
    ("question_answering", ["q", "a b a"], {"text": ["b"], "answer_start": []}, "do not fit"),
    ("question_answering", ["q"], "a", "a single text"),
]


@pytest.mark.parametrize(("spec", "texts", "cell", "expected"), CELLS)
def test_a_cell_is_read_as_a_label(spec: Mapping[str, Any], texts: list[Any], cell: Any, expected: str | None) -> None:
    task = TASKS.build(spec)
    _, label = task.read(texts, cell)
    assert expected in (None, label)
    assert len(task.column([label, label], tuple(sorted(task.classes(label))))) == 2


@pytest.mark.parametrize(("name", "texts", "cell", "reason"), REFUSED)
def test_a_cell_that_is_no_label_is_refused_with_a_reason(name: str, texts: list[Any], cell: Any, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        TASKS.build(name).read(texts, cell)


def test_words_become_a_text_and_keep_their_places() -> None:
    task = TASKS.build("token_classification")
    words = ["我", "爱", "New", "York", ",", "北京", "iPhone", "好"]
    (text,), label = task.read([words], "O O B-LOC I-LOC O B-LOC O O")
    assert text == "我爱New York ,北京iPhone好"
    assert [text[a:b] for a, b, _ in json.loads(label)] == words
    assert [word["begins"] for word in task.column([label], ("B-LOC", "I-LOC", "O"))[0].as_py()] == [
        *(True, True, True, False),
        *(True, True, True, True),
    ]


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(file)


def test_rows_of_any_task_are_divided_and_two_targets_of_one_text_both_stay(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": f"target {number}"} for number in range(20)]
    rows += [{"text": "text 3", "label": "another"}, {"text": "text 3", "label": "another"}, {"text": "x", "label": ""}]
    source = written(tmp_path, rows)
    found = data.load(Data(source=source, max_bad_rows=1), task=TASKS.build("seq2seq"))
    tables = (found.train, found.selection, found.test)
    labels = [label for table in tables for label in table["label"].to_pylist()]
    assert sorted(labels) == sorted({*(f"target {number}" for number in range(20)), "another"})
    assert (found.labels, [table.num_rows for table in tables]) == ((), [17, 2, 2])
    assert any("repeat another row: 1" in note for note in found.notes)
    classes = data.load(Data(source=source, max_bad_rows=1), task=TASKS.build("classification"))
    assert any("contradicting labels: 3" in note for note in classes.notes)


def test_labels_of_several_classes_are_counted_class_by_class(tmp_path: Path) -> None:
    names = [["a"], ["a", "b"], [], ["c", "b"]]
    source = written(tmp_path, [{"text": f"text {n}", "label": names[n % 4]} for n in range(40)])
    found = data.load(Data(source=source), task=TASKS.build("multi_label"))
    assert found.labels == ("a", "b", "c")
    rows = zip(found.train["text"].to_pylist(), found.train["label"].to_pylist(), strict=True)
    hot = {tuple(names): [float(name in names) for name in "abc"] for names in names}
    assert all(label == hot[tuple(names[int(text.split()[1]) % 4])] for text, label in rows)


EXPERIMENTS = [
    ({"task": "regression", "output": {"objectives": ["rdrop"]}}, "objective rdrop as it is set is not defined"),
    (
        {"task": "seq2seq", "output": {"objectives": [{"name": "cross_entropy", "class_weights": [1, 2]}]}},
        "not defined for the task seq2seq",
    ),
    ({"task": "token_classification", "input": {"reconstruct": ["normalize"]}}, "leave input.reconstruct out"),
    ({"task": {"name": "causal_lm", "target_length": 62}}, "leaves 2 tokens for the prompt"),
    ({"task": "question_answering"}, "data.text and data.pair"),
]


@pytest.mark.parametrize(("parts", "message"), EXPERIMENTS)
def test_what_does_not_go_with_a_task_is_one_line(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Experiment(data=Data(source="any"), **parts)


def test_a_search_needs_a_metric_of_the_task() -> None:
    plain = Experiment(data=Data(source="any"), task="regression")
    fidelity = {"metric": "rmse", "constraints": {"text/fidelity": {"min": 0.9}}}
    for search, message in (
        ({}, "known: mae"),
        ({"metric": "rmse", "screen": 2}, "search.screen judges .* regression has none"),
        (fidelity, "text/fidelity judges .* regression has none"),
    ):
        with pytest.raises(ValueError, match=message):
            Pipeline(name="x", experiment=plain, search={"space": "y.yaml", **search})


def test_hub_datasets_give_tags_by_name_and_answers_as_they_are() -> None:
    import datasets

    from bothways.data import sources
    from bothways.data.checking import check
    from bothways.data.reading import Columns

    tags = datasets.List(datasets.ClassLabel(names=["O", "B-X"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    rows = {"tokens": [["the", "film"], ["a"]], "ner_tags": [[0, 1], [0]]}
    found = datasets.Dataset.from_dict(rows, features=features)
    columns = Columns("tokens", None, "ner_tags")
    assert not sources._unlabelled(found, columns)
    read = check("hub", sources._hub_records("hub", found, columns), TASKS.build("token_classification"))
    assert read.texts == ["the film", "a"]
    assert [json.loads(label) for label in read.labels] == [[[0, 3, "O"], [4, 8, "B-X"]], [[0, 1, "O"]]]

    squad = {"question": ["Where?"], "context": ["She is in Paris."], "answers": [SQUAD]}
    columns = Columns("question", "context", "answers")
    found = datasets.Dataset.from_dict(squad)
    assert not sources._unlabelled(found, columns)
    read = check("hub", sources._hub_records("hub", found, columns), TASKS.build("question_answering"))
    assert (read.pairs, read.labels) == (["She is in Paris."], ["[[10, 15]]"])
