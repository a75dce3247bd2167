"""Which token gets which label, worked out by hand; and that labels go with a text that is changed."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from bothways.batches.batching import Encode, collate, evaluation_views
from bothways.config import InputSide
from bothways.contracts import NO_LABEL, Batch
from bothways.errors import UserError
from bothways.registry import TASKS
from bothways.tokenization import ModelReader
from tests import tiny

_ = NO_LABEL
LONG = "a plot with music and one very great actor"


def views(task: Any, texts: list[list[Any]], cells: list[Any], copies: int = 0) -> pa.Table:
    read = [task.read(list(texts_), cell) for texts_, cell in zip(texts, cells, strict=True)]
    classes = tuple(sorted({one for _, label in read for one in task.classes(label)}))
    pairs = [row[1] if len(row) > 1 else None for row, _ in read]
    table = pa.table(
        {
            "id": pa.array(range(len(read)), pa.int64()),
            "text": pa.array([row[0] for row, _ in read], pa.string()),
            "pair": pa.array(pairs, pa.string()),
            "label": task.column([label for _, label in read], classes),
        }
    )
    if not copies:
        return evaluation_views(table)
    table = pa.concat_tables([table] * copies)
    table = table.append_column("epoch", pa.array(np.arange(len(table)) // len(read), pa.int32()))
    return table.append_column("copy", pa.array(np.ones(len(table)), pa.int32()))


def encode(task: Any, family: str, **how: Any) -> Encode:
    how = {"max_length": 12, "paired": task.places == "pair", **how}
    return Encode(tokenizer_path=tiny.model_dir(family), task=task, **how)


def ids(*words: str) -> list[int]:
    vocabulary = [*tiny.SPECIAL, *tiny.GOOD, *tiny.BAD, *tiny.OTHER]
    return [vocabulary.index(word) for word in words]


def made(task: Any, family: str, texts: list[list[Any]], cells: list[Any], **how: Any) -> Batch:
    return collate(encode(task, family, **how)(views(task, texts, cells)), pad_id=0)


def test_a_decoder_learns_the_target_and_its_end_and_nothing_of_the_prompt() -> None:
    task = TASKS.build({"name": "causal_lm", "target_length": 3, "separator": " is "})
    batch = made(
        task, "gpt2", [["the film"], ["a plot with music and one very great actor"]], ["good", "bad dull awful"]
    )
    first = ids("the", "film", "is", "good", "[SEP]")
    second = ids("a", "plot", "with", "music", "and", "one", "very", "great", "is", "bad", "dull", "[SEP]")
    assert batch.inputs["input_ids"].tolist() == [first + [0] * 7, second]
    assert batch.inputs["attention_mask"].sum(dim=1).tolist() == [5, 12]
    assert batch.labels.tolist() == [
        [_, _, *ids("good", "[SEP]"), *[_] * 8],
        [*[_] * 8, *ids("bad", "dull", "[SEP]"), _],
    ]
    assert batch.references == ("good", "bad dull awful")


def test_a_template_stays_whole_and_the_text_in_it_is_cut() -> None:
    task = TASKS.build({"name": "causal_lm", "target_length": 3, "template": "the {text} is"})
    batch = made(task, "gpt2", [["film"], [LONG]], ["good", "bad dull awful"])
    first = ids("the", "film", "is", "good", "[SEP]")
    second = ids("the", "a", "plot", "with", "music", "and", "one", "very", "is", "bad", "dull", "[SEP]")
    assert batch.inputs["input_ids"].tolist() == [first + [0] * 7, second]
    assert batch.labels.tolist() == [
        [_, _, *ids("good", "[SEP]"), *[_] * 8],
        [*[_] * 8, *ids("bad", "dull", "[SEP]"), _],
    ]


@pytest.mark.parametrize(
    ("text", "pair", "prompt"),
    [
        ("film", "a plot", "one a plot and film is"),
        (LONG, "film", "one film and a plot with music and is"),  # six tokens are left for both
        ("film", LONG, "one a plot with music and and film is"),
        (LONG, LONG, "one a plot with and a plot with is"),
    ],
)
def test_of_a_text_and_its_pair_the_longer_one_is_cut(text: str, pair: str, prompt: str) -> None:
    task = TASKS.build({"name": "causal_lm", "target_length": 3, "template": "one {pair} and {text} is"})
    batch = made(task, "gpt2", [[text, pair]], ["good"], paired=True)
    assert batch.inputs["input_ids"].tolist() == [ids(*prompt.split(), "good", "[SEP]")]


@pytest.fixture
def chatting(tmp_path: Path) -> str:
    """The directory of a tokenizer with a chat template, which names the day."""
    fast = AutoTokenizer.from_pretrained(tiny.model_dir("gpt2"))
    fast.chat_template = (
        "{{ strftime_now('%Y') }} {% for m in messages %}[SEP] {{ m['content'] }} [SEP] {% endfor %}"
        "{% if add_generation_prompt %}it was{% endif %}"
    )
    fast.save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_chat_is_what_the_tokenizers_own_template_writes(chatting: str) -> None:
    task = TASKS.build({"name": "causal_lm", "target_length": 3, "template": "chat", "separator": " and "})
    encode_ = Encode(tokenizer_path=chatting, max_length=18, paired=True, task=task)
    batch = collate(encode_(views(task, [["the film", "a plot"]], ["good"])), pad_id=0)
    said = ["[SEP]", "the", "film", "and", "a", "plot", "[SEP]", "it", "was"]
    assert batch.inputs["input_ids"].tolist() == [ids(*["[UNK]"] * 3, *said, "good", "[SEP]")]
    assert batch.labels.tolist() == [[*[_] * (2 + len(said)), *ids("good", "[SEP]"), _]]
    message = [{"role": "user", "content": "the film and a plot"}]
    plain = AutoTokenizer.from_pretrained(chatting).apply_chat_template(message, add_generation_prompt=True)
    assert plain["input_ids"] == ids("[UNK]", *said)  # of the day, the year
    reader = ModelReader(path=chatting, vocabulary=None, max_length=16, start=None)
    assert reader.chat("x") == "26 Jul 2024 [SEP] x [SEP] it was"  # whatever day it is


def test_a_template_that_cannot_be_followed_is_refused() -> None:
    def read(template: str) -> None:
        task = TASKS.build({"name": "causal_lm", "target_length": 3, "template": template})
        made(task, "gpt2", [["film"]], ["good"])

    with pytest.raises(UserError, match=r"no chat template: write task\.template out, with \{text\} in the place"):
        read("chat")
    with pytest.raises(UserError, match=r"takes 6 of the 9 tokens that task\.target_length leaves"):
        read("the plot and the film {text} is")
    wrong = {
        "no place": "'no place' has {text} 0 times",
        "{text} {text}": "has {text} 2 times",
        "{text} {pair}": "has {pair}, but data.pair is not set",
    }
    for template, why in wrong.items():
        with pytest.raises(ValueError, match=re.escape(why)):
            tiny.experiment("gpt2", task={"name": "causal_lm", "target_length": 3, "template": template})
    with pytest.raises(ValueError, match=r"has no \{pair\}"):
        tiny.experiment(
            "gpt2", task={"name": "causal_lm", "target_length": 3, "template": "{text}"}, data={"pair": "pair"}
        )


def test_a_text_without_a_token_leaves_the_first_of_the_answer_unlearnt() -> None:
    batch = made(TASKS.build({"name": "causal_lm", "target_length": 4}), "gpt2", [[" "]], ["good film"])
    assert batch.inputs["input_ids"].tolist() == [ids("good", "film", "[SEP]")]  # nothing comes before it
    assert batch.labels.tolist() == [[*ids("film", "[SEP]"), _]]


def test_without_a_template_nothing_is_said_of_it() -> None:
    assert "template" not in TASKS.build("causal_lm").spec()


def test_a_decoder_beside_an_encoder_reads_the_target_one_token_behind() -> None:
    task = TASKS.build({"name": "seq2seq", "target_length": 4})
    batch = made(task, "t5", [["the film"], ["a"]], ["good", "bad dull awful"], start=0)
    assert batch.inputs["input_ids"].tolist() == [
        ids("[CLS]", "the", "film", "[SEP]"),
        [*ids("[CLS]", "a", "[SEP]"), 0],
    ]
    assert batch.labels.tolist() == [[*ids("[CLS]", "good", "[SEP]"), _], ids("[CLS]", "bad", "dull", "[SEP]")]
    assert batch.inputs["decoder_input_ids"].tolist() == [
        [0, *ids("[CLS]", "good"), 0],
        [0, *ids("[CLS]", "bad", "dull")],
    ]
    same = made(task, "bert", [["the film"], ["a"]], ["good", "bad dull awful"], start=2)
    assert same.labels.tolist() == [[*ids("good", "[SEP]"), _], ids("bad", "dull", "[SEP]")]
    assert same.inputs["decoder_input_ids"].tolist() == [[*ids("[CLS]", "good"), 0], ids("[CLS]", "bad", "dull")]


def test_a_words_tag_is_at_its_first_token() -> None:
    task = TASKS.build("token_classification")
    # The tokenizer knows words and marks: "film-music" is three tokens, and one word.
    words = [["the", "film-music", "was", "good"], ["a", "film"]]
    batch = made(task, "bert", [[row] for row in words], ["O B-X I-X O", "O B-X"], max_length=7)
    assert batch.labels.tolist() == [[_, 2, 0, _, _, 1, _], [_, 2, 0, _, _, _, _]]  # B-X 0, I-X 1, O 2; "good" is cut
    assert [[(one["token"], one["start"]) for one in row] for row in batch.references] == [
        [(1, 0), (2, 4), (5, 15)],
        [(1, 0), (2, 2)],
    ]


def test_an_answer_is_its_first_and_last_token() -> None:
    task = TASKS.build("question_answering")
    texts = [["one", "the film was very good"], ["one", "a plot"], ["one", "it was a very very very long good film"]]
    batch = made(task, "bert", texts, ["very good", "", "film"])
    assert batch.labels.tolist() == [[6, 7], [0, 0], [_, _]]  # [CLS] one [SEP] the film was very good [SEP]
    assert batch.inputs["token_type_ids"][0].tolist()[:9] == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert batch.references[0]["starts"][:5] == [-1, -1, -1, 0, 4]
    assert batch.references[0]["answers"] == ["very good"]


SIDE = InputSide.model_validate(
    {
        "augment": {
            "n_aug": 1,
            "policy": [
                [{"name": "random_deletion", "p": 0.2}, {"name": "random_swap", "p": 0.2}],
                [{"name": "random_substitution", "p": 0.3}],
                [{"name": "sentence_shuffle"}, {"name": "char_noise", "p": 0.3}],
            ],
        }
    }
)
NAMES = ["Ada", "Lovelace", "met", "Charles", "Babbage", "in", "London", ".", "She", "liked", "his", "engine", "."]
TAGS = "B-PER I-PER O B-PER I-PER O B-LOC O O O O O O"
CHINESE = ["小", "明", "昨", "天", "去", "了", "北", "京", "，", "天", "气", "很", "好", "。"]
CHINESE_TAGS = "B-PER I-PER O O O O B-LOC I-LOC O O O O O O"


def read(task: Any, table: pa.Table, language: str = "en") -> pa.Table:
    from bothways import policy

    statistics = policy.statistics(table, language)
    how = encode(task, "bert", side=SIDE, language=language, statistics=statistics)
    return how._read(table)


@pytest.mark.parametrize(("words", "tags", "language"), [(NAMES, TAGS, "en"), (CHINESE, CHINESE_TAGS, "zh")])
def test_tags_go_with_their_words_and_names_stay_whole(words: list[str], tags: str, language: str) -> None:
    task = TASKS.build("token_classification")
    table = views(task, [[words]], [tags], copies=200)
    found = read(task, table, language)
    original = [word["label"] for word in table["label"][0].as_py()]
    changed = gone = 0
    for text, row in zip(found["text"].to_pylist(), found["label"].to_pylist(), strict=True):
        changed += text != table["text"][0].as_py()
        gone += sum(word["start"] < 0 for word in row)
        for word, expected, label in zip(row, words, original, strict=True):
            assert word["label"] == label
            assert word["start"] < 0 or text[word["start"] : word["stop"]] == expected
        for before, word in pairwise(row):
            if not word["begins"] and max(before["start"], word["start"]) >= 0:
                assert 0 <= before["start"] < before["stop"] <= word["start"] <= before["stop"] + 1
    assert changed > 100
    assert gone > 30


@pytest.mark.parametrize(
    ("text", "answer", "language"),
    [
        ("Ada Lovelace met Charles Babbage in London. She liked his engine.", "Charles Babbage", "en"),
        ("小明昨天去了北京，天气很好。", "北京", "zh"),
    ],
)
def test_an_answer_moves_with_its_text_or_the_change_is_refused(text: str, answer: str, language: str) -> None:
    task = TASKS.build("question_answering")
    table = views(task, [["who was it?", text]], [answer], copies=200)
    found = read(task, table, language)
    places = [row[0] for row in found["label"].to_pylist()]
    texts = found["pair"].to_pylist()
    assert {one[place["start"] : place["stop"]] for one, place in zip(texts, places, strict=True)} == {answer}
    assert len({place["start"] for place in places}) > 3
    assert sum(one != text for one in texts) > 60
    assert any(one == text for one in texts)


def test_an_empty_block_has_the_columns_of_a_full_one() -> None:
    cells: dict[str, tuple[list[Any], Any]] = {
        "classification": (["good"], "a"),
        "multi_label": (["good"], ["a"]),
        "regression": (["good"], 1),
        "token_classification": ([["good"]], "O"),
        "question_answering": (["one", "good"], "good"),
        "seq2seq": (["good"], "bad"),
        "causal_lm": (["good"], "bad"),
    }
    assert set(cells) == set(TASKS.names())
    for name, (texts, cell) in cells.items():
        task = TASKS.build({"name": name, "target_length": 4} if TASKS.get(name).writes else name)
        table = views(task, [texts], [cell])
        full, empty = (encode(task, "bert", start=2)(part) for part in (table, table.slice(0, 0)))
        assert (full.num_rows, empty.num_rows) == (1, 0)
        assert full.schema == empty.schema, name
        assert full["label"].type == pa.concat_tables([empty, full])["label"].type
