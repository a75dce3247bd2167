"""What is particular to transforms that have a language model write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bothways import policy
from bothways.config import Augment, InputSide, Protect
from bothways.errors import UserError
from bothways.input_side import generation
from bothways.input_side.augment import back_translation, lm_sampling
from bothways.input_side.examples import Examples
from bothways.input_side.generated import Written
from bothways.input_side.statistics import Statistics
from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.seeding import U64, keys
from bothways.text import TextBatch
from tests import tiny
from tests.tiny_language import causal_dir, seq2seq_dir

GOOD = [f"a good film with a great {word}" for word in ["plot", "story", "scene", "actor", "end", "line", "music"]]
BAD = [f"a bad film with a dull {word}" for word in ["plot", "story", "scene", "actor", "end", "line", "music"]]


def examples() -> Examples:
    return Examples([*GOOD, *BAD], np.repeat([0, 1], len(GOOD)))


def context(words: tuple[str, ...] = (), rows: Examples | None = None) -> InputContext:
    statistics = replace(Statistics.of([*GOOD, *BAD]), examples=rows)
    return InputContext(slot="augment/0/0", statistics=statistics, protect=Protect(words=words))


def apply(knobs: dict[str, Any], texts: Sequence[str], how: InputContext) -> list[str]:
    transform = TRANSFORMS.build(knobs)
    return transform(how.read(texts, keys(np.arange(len(texts)))), how).texts()  # type: ignore[no-any-return]


def answering(answers: dict[str, str | None]) -> Any:
    """A model that answers as listed, and with None is cut off."""

    def write(source: str, inputs: Sequence[str], row_keys: U64, how: generation.Settings) -> list[Written]:
        assert len(inputs) == len(row_keys)
        found = [next(answer for part, answer in answers.items() if part in text) for text in inputs]
        return [Written("cut", False) if answer is None else Written(answer, True) for answer in found]

    return write


def test_a_translation_that_is_no_use_leaves_the_text_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, str | None] = {
        "there: there is nothing good": "back: es gibt nichts",
        "there: it is a good film": "ein guter Film",
        "there: the end": "das Ende",
        "there: the story": "die Handlung",
        "there: not a plot": "kein Plot",
        "again: ein guter Film": " A fine movie it is ",
        "again: das Ende": "the end the end the end the end the end",
        "again: die Handlung": None,
        "again: kein Plot": "a plot it is",
        "again: back: es gibt nichts": "",
    }
    monkeypatch.setattr(back_translation, "write", answering(answers))
    knobs = {"name": "back_translation", "forward": "x", "back": "y", "p": 1.0}
    knobs |= {"forward_prefix": "there: ", "back_prefix": "again: ", "ratio": 3.0}
    texts = ["it is a good film", "the end", "the story", "not a plot", "there is nothing good", " "]
    assert apply(knobs, texts, context()) == ["A fine movie it is", *texts[1:]]


def test_translation_without_models_is_an_error_that_says_so_and_without_p_none() -> None:
    with pytest.raises(ValidationError, match="two translation models"):
        TRANSFORMS.build({"name": "back_translation", "p": 0.5})
    assert TRANSFORMS.build({"name": "back_translation"}).p == 0
    assert TRANSFORMS.build({"name": "back_translation", "forward": "a", "back": "b"}).p == 0.5
    assert not TRANSFORMS.build("back_translation").loads_model


@pytest.mark.slow
def test_a_sample_is_kept_only_where_the_classifier_agrees_and_it_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    wanted = {
        GOOD[0]: " good great story and a great actor",  # of its class
        GOOD[1]: " bad dull music and a dull end",  # of the other one
        BAD[0]: BAD[1][len("a bad") :],  # a training row
        BAD[2]: " film, dull dull dull dull dull dull dull dull",  # round in circles
    }

    def write(source: str, inputs: Sequence[str], row_keys: U64, how: generation.Settings) -> list[Written]:
        assert how.stop == "\n"
        seen.extend(inputs)
        return [Written(text, True) for text in wanted.values()]

    monkeypatch.setattr(lm_sampling, "write", write)
    knobs = {"name": "lm_sampling", "p": 1.0, "confidence": 0.6, "start": 2}
    how = context(rows=examples())
    after = apply(knobs, list(wanted), how)
    assert after == ["a good good great story and a great actor", *list(wanted)[1:]]
    for prompt, row in zip(seen, wanted, strict=True):
        *shown, last = prompt.split("\n")
        assert 1 <= len(shown) <= 4
        assert {line.removeprefix("Text: ") for line in shown} <= set(GOOD if row in GOOD else BAD)
        assert last == "Text: " + " ".join(row.split()[:2])
    with pytest.raises(UserError, match="needs training rows of single texts"):
        apply(knobs, list(wanted), context())


@pytest.mark.slow
def test_listed_words_have_to_be_in_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_sampling, "write", answering({"": " good great story and a great actor"}))
    knobs = {"name": "lm_sampling", "p": 1.0, "confidence": 0.0}
    texts = ["a good film with a great plot", "a good film with a great story"]
    assert apply(knobs, texts, context(("story",), examples()))[0] == "a good good great story and a great actor"
    assert apply(knobs, texts, context(("plot",), examples()))[0] == texts[0]


def test_a_sample_that_was_cut_off_ends_with_its_last_sentence() -> None:
    whole = lm_sampling._whole
    assert whole("It is", Written(" good. And then", False)) == "It is good."
    assert whole("很", Written("好看。后来", False)) == "很好看。"
    assert whole("It is", Written(" good and then", False)) == ""
    assert whole("It is", Written(" good and then", True)) == "It is good and then"
    assert whole("It is", Written("  ", True)) == ""


@pytest.mark.slow
def test_the_classifier_knows_its_rows_and_is_unsure_of_others() -> None:
    rows = examples()
    texts = ["a great good plot", "dull bad music", "something else"]
    sure = rows.confidence(texts, np.array([0, 1, 0]))
    assert sure[0] > 0.6 and sure[1] > 0.6 and 0.3 < sure[2] < 0.7
    assert rows.confidence(texts, np.array([1, 0, 7]))[2] == 0.0
    assert rows.labels_of([GOOD[0], BAD[0], "new"]).tolist() == [0, 1, -1]
    assert Examples(["same", "same"], np.array([0, 1])).labels_of(["same"]).tolist() == [-1]


def test_a_model_summary_has_its_length_and_its_words_or_is_extracted(monkeypatch: pytest.MonkeyPatch) -> None:
    from bothways.input_side.reconstruct import summarize

    text = "The film is long. It has a plot, and actors who play in it very well. The music is dull. We went home late."
    knobs: dict[str, Any] = {"name": "summarize", "method": "model", "model": "x", "ratio": 0.4}

    def after(answer: str | None, words: tuple[str, ...] = ()) -> str:
        monkeypatch.setattr(summarize, "write", answering({"": answer}))
        return apply(knobs, [text], context(words))[0]

    extracted = apply({"name": "summarize", "ratio": 0.4}, [text], context())[0]
    assert after("A long film with good actors.") == "A long film with good actors."
    assert after("A long film. Its actors are good. And much more that nobody has asked for.") == (
        "A long film. Its actors are good."
    )
    assert after("music music music music music music music") == extracted
    assert after(None) == extracted
    kept = after("A long film with good actors.", ("music",))
    assert kept == apply({"name": "summarize", "ratio": 0.4}, [text], context(("music",)))[0]
    assert "music" in kept
    with pytest.raises(ValidationError, match="belong together"):
        TRANSFORMS.build({"name": "summarize", "method": "model"})
    assert "model" not in TRANSFORMS.build("summarize").spec()


def test_a_side_says_what_it_needs_and_statistics_have_it() -> None:
    side = InputSide(augment=Augment(n_aug=1, policy=[[{"name": "lm_sampling"}]]))  # type: ignore[arg-type]
    plain = InputSide(augment=Augment(n_aug=1, policy=[[{"name": "random_swap"}]]))  # type: ignore[arg-type]
    assert (policy.takes_examples(side), policy.loads_model(side)) == (True, True)
    assert (policy.takes_examples(plain), policy.loads_model(plain)) == (False, False)
    train = tiny.rows(10, seed=1)
    found = policy.statistics(train, "en", examples=True).examples
    assert found is not None and list(found.texts) == train["text"].to_pylist()
    assert policy.statistics(train, "en").examples is None
    assert policy.statistics(tiny.rows(10, seed=1, paired=True), "en", examples=True).examples is None
    named = train.set_column(3, "label", pa.array(["x"] * 10))
    assert policy.statistics(named, "en", examples=True).examples is None


@pytest.mark.slow
@pytest.mark.usefixtures("cache_aside")
def test_a_policy_reads_through_real_models(monkeypatch: pytest.MonkeyPatch) -> None:
    translate = {"name": "back_translation", "forward": seq2seq_dir(), "back": seq2seq_dir("marian"), "ratio": 50.0}
    sample = {"name": "lm_sampling", "model": causal_dir(), "confidence": 0.0, "temperature": 3.0, "p": 1.0}
    side = InputSide(augment=Augment(n_aug=1, policy=[[sample], [translate]]))  # type: ignore[arg-type]
    train = tiny.rows(24, seed=1)
    views = train.append_column("epoch", pa.array([0] * 24)).append_column("copy", pa.array([1] * 24))
    statistics = policy.statistics(train, "en", examples=True)
    read = policy.read(views, side=side, language="en", seed=1, statistics=statistics)
    changed = sum(a != b for a, b in zip(read["text"].to_pylist(), train["text"].to_pylist(), strict=True))
    assert changed > 6 and read["label"].equals(train["label"])
    parts = [
        policy.read(views.slice(start, 8), side=side, language="en", seed=1, statistics=statistics)
        for start in (16, 0, 8)
    ]
    assert pa.concat_tables([parts[1], parts[2], parts[0]])["text"].to_pylist() == read["text"].to_pylist()


def test_rows_that_are_not_drawn_load_no_model() -> None:
    batch = TextBatch.from_texts([GOOD[0]])
    how = replace(context(rows=examples()), strength=np.zeros(1))
    knobs = {"name": "lm_sampling", "model": "/nowhere", "p": 1.0}
    assert TRANSFORMS.build(knobs)(batch, how).texts() == [GOOD[0]]
