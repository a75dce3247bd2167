"""Which words carry the label, and that augmentation leaves them in place."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bothways import policy
from bothways.config import Experiment, InputSide
from bothways.data.reading import Columns
from bothways.errors import UserError
from bothways.input_side.label_words import LabelWords
from bothways.input_side.log_odds import log_odds
from bothways.input_side.lookup import WordSet
from bothways.policy import apply as policy_apply
from bothways.text import TextBatch
from bothways.training.workspace import Workspace
from tests import tiny

QUESTIONS = [
    "Who wrote the book",
    "who was the king",
    "WHO is it",
    "Where is the city",
    "where was the king",
    "Where is it",
]
LABELS = np.array([0, 0, 0, 7, 7, 7])


def held(found: WordSet, words: str) -> list[str]:
    batch = TextBatch.from_texts([words])
    tokens = np.flatnonzero(batch.is_word)
    marks = found.holds(*batch.words(tokens))
    return [word for word, mark in zip(batch.tokens()[0], marks, strict=True) if mark]


def test_words_of_one_label_come_first_in_any_case_and_stop_words_are_among_them() -> None:
    found = LabelWords.of(QUESTIONS, LABELS, "character")
    assert held(found.first(0.3), "who where the king is was it book") == ["who", "where"]
    assert held(found.first(0.1), "who where the") == []  # each of them is 3 of 22 running words
    assert held(found.first(0.0), "who where") == []
    shared = held(found.first(1.0), "who where king it the wrote city WHERE")
    assert shared == ["who", "where", "wrote", "city", "WHERE"]  # `king`, `it` and `the` are nobody's
    assert found.covered[-1] < 1
    assert (np.diff(found.covered) > 0).all()


def test_the_order_is_that_of_the_highest_log_odds() -> None:
    texts, labels = ["a a b", "a c", "b c c c"], np.array([0, 1, 2])
    counts = np.array([[2, 1, 0], [1, 0, 1], [0, 1, 3]])
    z = np.max([log_odds(row, counts.sum(axis=0) - row, 0.1) for row in counts], axis=0)
    order = "".join(np.array(list("abc"))[np.argsort(-z)])
    found = LabelWords.of(texts, labels, "character")
    covered = np.cumsum([{"a": 3, "b": 2, "c": 4}[word] for word in order]) / 9
    assert found.covered == pytest.approx(covered)
    assert held(found.first(float(covered[0])), "a b c") == [order[0]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("segmentation", "expected"), [("character", ["喜", "欢", "讨", "厌"]), ("word", ["喜欢", "讨厌"])]
)
def test_chinese_words_are_of_the_segmentation(segmentation: str, expected: list[str]) -> None:
    if segmentation == "word":
        pytest.importorskip("jieba")
    texts = ["我喜欢这本书", "我喜欢这部电影", "我讨厌这本书", "我讨厌这部电影"]
    first = LabelWords.of(texts, np.array([1, 1, 0, 0]), segmentation).first(0.7)  # type: ignore[arg-type]
    batch = TextBatch.from_texts(["我喜欢又讨厌电影"], None, segmentation)  # type: ignore[arg-type]
    tokens = np.flatnonzero(batch.is_word)
    kept = first.holds(*batch.words(tokens))
    assert [word for word, mark in zip(batch.tokens()[0], kept, strict=True) if mark] == expected


def side(share: float, **more: object) -> InputSide:
    augment = {"n_aug": 1, "policy": [[{"name": "random_deletion", "p": 0.9}]]}
    return InputSide(augment=augment, protect={"label_words": share, "negators": False}, **more)


def views(rows: pa.Table, copy: int = 1) -> pa.Table:
    epoch = pa.array(np.zeros(rows.num_rows, np.int32))
    return rows.append_column("epoch", epoch).append_column("copy", pa.array(np.full(rows.num_rows, copy, np.int32)))


def read(rows: pa.Table, what: InputSide, copy: int = 1) -> pa.Table:
    counted = policy.statistics(rows, "en", label_words=what.protect.label_words > 0)
    return policy.read(
        views(rows, copy), side=what, language="en", seed=0, statistics=pickle.loads(pickle.dumps(counted))
    )


@pytest.mark.parametrize("paired", [False, True])
def test_copies_keep_the_words_that_tell_and_lose_others(paired: bool) -> None:
    rows, telling = tiny.rows(80, seed=1, paired=paired), {*tiny.GOOD, *tiny.BAD}
    column = "pair" if paired else "text"

    def kept(share: float) -> float:
        texts = read(rows, side(share))[column].to_pylist()
        return float(np.mean([bool(telling & set(text.split())) for text in texts]))

    assert kept(0.0) < 0.5
    assert kept(0.3) == 1.0
    lengths = [len(text.split()) for text in read(rows, side(0.3))[column].to_pylist()]
    assert np.mean(lengths) < 0.6 * np.mean([len(text.split()) for text in rows[column].to_pylist()])


def test_reconstruction_knows_no_labels_and_what_is_rewritten_keeps_its_words() -> None:
    rows = tiny.rows(40, seed=1)
    untidy = rows.set_column(1, "text", [[text.replace(" ", "  ").upper() for text in rows["text"].to_pylist()]])
    what = side(0.3, reconstruct=[{"name": "normalize"}])
    evaluated = policy.read(views(untidy, 0), side=what, language="en", seed=0, statistics=None)
    trained = read(untidy, what, copy=0)
    assert evaluated["text"].to_pylist() == trained["text"].to_pylist() != untidy["text"].to_pylist()
    telling = {word.upper() for word in [*tiny.GOOD, *tiny.BAD]}
    assert all(telling & set(text.split()) for text in read(untidy, what)["text"].to_pylist())


def test_it_is_off_by_default_and_needs_labelled_rows() -> None:
    rows = tiny.rows(20, seed=1)
    assert InputSide().protect.label_words == 0
    assert policy.statistics(rows, "en").label_words is None
    with pytest.raises(UserError, match=r"protect\.label_words needs labelled training rows"):
        policy.read(views(rows), side=side(0.2), language="en", seed=0, statistics=policy.statistics(rows, "en"))
    for wrong in (rows.drop_columns("label"), rows.set_column(3, "label", pa.array([0.5] * 20))):
        with pytest.raises(UserError, match=r"protect\.label_words needs rows with one class each.*set it to 0"):
            policy.statistics(wrong, "en", label_words=True)


def test_a_trial_finds_them_in_its_own_training_rows_only(tmp_path: Path) -> None:
    spec = {"augment": {"n_aug": 1, "policy": [[{"name": "random_deletion", "p": 0.9}]]}}
    what = tiny.experiment(input={**spec, "protect": {"label_words": 0.3}}, optim={"steps": 1, "evaluate_every": 1})
    workspace = Workspace()
    trial = tiny.trial(what, tmp_path, workspace)
    report = next(trial.reports())
    encode = trial._encode(what.input)
    assert encode.statistics is trial._encode(what.input).statistics, "they are counted anew for every block"
    assert encode.statistics is not None and encode.statistics.label_words is not None
    own = policy.statistics(tiny.dataset().train, "en", label_words=True).label_words
    assert own is not None
    assert (encode.statistics.label_words.hashes == own.hashes).all()
    free = tiny.trial(tiny.experiment(input=spec, optim={"steps": 1, "evaluate_every": 1}), tmp_path / "b", workspace)
    assert report.metrics["text/words_ratio"] > 1.4 * next(free.reports()).metrics["text/words_ratio"]


def test_a_policy_applied_to_a_file_finds_them_in_its_labels(tmp_path: Path) -> None:
    rows = tiny.rows(60, seed=1).to_pylist()
    file = tmp_path / "rows.tsv"
    file.write_text("label\ttext\n" + "".join(f"{tiny.LABELS[row['label']]}\t{row['text']}\n" for row in rows))
    what = Experiment.model_validate({"data": {"source": ""}, "input": side(0.3).model_dump(mode="json")})
    labelled = policy_apply.Source(name=str(file), columns=Columns(text="text", pair=None, label="label"))
    list(policy_apply.apply(labelled, what, tmp_path / "out.parquet"))
    import pyarrow.parquet as pq

    copies = [row["text"] for row in pq.read_table(tmp_path / "out.parquet").to_pylist() if row["copy"]]
    assert len(copies) == 60
    assert all({*tiny.GOOD, *tiny.BAD} & set(text.split()) for text in copies)
    unlabelled = policy_apply.Source(name=str(file), columns=Columns(text="text", pair=None, label=None))
    with pytest.raises(UserError, match=r"protect\.label_words needs rows with one class each"):
        list(policy_apply.apply(unlabelled, what, tmp_path / "none.parquet"))
