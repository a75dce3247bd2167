"""The contract of every transform there is, in English and Chinese."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from bothways.input_side.transform import InputContext, Transform
from bothways.registry import TRANSFORMS
from bothways.seeding import keys
from bothways.text import TextBatch
from tests import tiny, tiny_language
from tests.input_side.conftest import WORDS

pytestmark = pytest.mark.usefixtures("cache_aside")
MAP = str(Path(__file__).with_name("lexicon_map.tsv"))
LANGUAGE_MODEL = tiny.masked_lm_dir(tuple(word for words in WORDS.values() for word in words.split() if word.isalpha()))
NEIGHBOURS = [  # words of the texts, in groups that a tiny model takes for much the same
    *(("movie", "film", "story"), ("great", "good", "moving"), ("director", "actors"), ("people", "city")),
    *(("surprise", "jokes", "love"), ("laugh", "cry", "remember", "forget"), ("电影", "城市"), ("导演", "演员")),
    *(("故事", "爱情", "结尾"), ("喜欢", "好看"), ("观众", "遗憾", "但是")),
]
MADE: dict[str, Callable[[], str]] = {  # stands for a folder that is made at its first use
    "tiny translator": tiny_language.seq2seq_dir,
    "tiny translator back": cache(lambda: tiny_language.seq2seq_dir("marian")),
    "tiny writer": tiny_language.causal_dir,
    "tiny encoder": cache(lambda: tiny_language.encoder_dir(NEIGHBOURS)),
}
NEEDS: dict[str, dict[str, Any]] = {  # knobs without a default that does something
    "lexicon_map": {"path": MAP},
    "contextual_substitution": {"model": LANGUAGE_MODEL},
    "back_translation": {"forward": "tiny translator", "back": "tiny translator back", "ratio": 50, "temperature": 3},
    "lm_sampling": {"model": "tiny writer", "confidence": 0.0, "temperature": 3.0},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, NEEDS.get(name, {})) for name in TRANSFORMS.names()),
    ("synonym_replacement", {"synonyms": "embeddings", "model": "tiny encoder"}),
    ("random_insertion", {"insert": "synonym"}),
    ("random_insertion", {"insert": "vocabulary"}),
    ("random_substitution", {"weighting": "tfidf"}),
    ("char_noise", {"kinds": ("swap", "homophone", "glyph")}),
    ("nlpaug", {"augmenter": "char.KeyboardAug", "arguments": {}}),
    ("background_noise", {"kinds": ("url",)}),
    ("sentence_shuffle", {"action": "drop"}),
    ("normalize", {"simplified": True}),
    ("simplify", {"strength": 1.0}),
    ("extract_keyphrases", {"method": "textrank", "mode": "append"}),
    ("extract_keyphrases", {"mode": "replace"}),
    ("summarize", {"method": "textrank", "ratio": 0.3}),
    ("summarize", {"method": "model", "model": "tiny translator", "ratio": 0.5}),
    ("summarize", {"max_words": 5, "keep": "protected"}),
    ("lexicon_map", {"path": MAP, "rate": 0.5}),
    ("contextual_substitution", {"model": LANGUAGE_MODEL, "top_k": 0, "temperature": 0.5}),
]
HAVE_P = [(name, knobs) for name, knobs in VARIANTS if "p" in TRANSFORMS.get(name).model_fields]
HOSTILE = st.text(st.characters(codec=None), max_size=12) | st.text("ab1'- 不好😀\u0301\u200d\ud800\n,", max_size=12)


def name_of(value: Any) -> str | None:
    """Of a temporary folder the last part only: the processes of a parallel run must agree on names."""
    knobs = [value] if isinstance(value, str) else [str(knob) for knob in value.values()]
    return "-".join(Path(knob).name if knob.startswith("/") else knob for knob in knobs)


def build(name: str, knobs: dict[str, Any], p: float | None = None) -> Transform:
    cls = TRANSFORMS.get(name)
    knobs = {
        knob: MADE[value]() if isinstance(value, str) and value in MADE else value for knob, value in knobs.items()
    }
    extra = {"p": p} if p is not None and "p" in cls.model_fields else {}
    transform: Transform = cls(**knobs, **extra)
    return transform


def apply(transform: Transform, texts: list[str], row_keys: Any, context: InputContext) -> list[str]:
    return transform(context.read(texts, row_keys), context).texts()


def cases(variants: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """nlpaug's word module and whatever has a model import all of transformers: they are not of the default tier."""
    models = {*MADE, LANGUAGE_MODEL}
    slow = [one for one in variants if one == ("nlpaug", {}) or models & {str(value) for value in one[1].values()}]
    return [pytest.param(*one, marks=pytest.mark.slow) if one in slow else one for one in variants]


every_transform = pytest.mark.parametrize(("name", "knobs"), cases(VARIANTS), ids=name_of)
every_strength = pytest.mark.parametrize(("name", "knobs"), cases(HAVE_P), ids=name_of)


@every_transform
def test_result_is_the_same_for_1_2_and_8_blocks_and_in_any_order(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    transform = build(name, knobs, 0.3)
    whole = apply(transform, texts, row_keys, context)
    for blocks in (2, 8):
        parts = np.array_split(np.arange(len(texts)), blocks)
        assert whole == [t for p in parts for t in apply(transform, [texts[i] for i in p], row_keys[p], context)]
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = apply(transform, [texts[i] for i in order], row_keys[order], context)
    assert [whole[i] for i in order] == shuffled


@every_transform
def test_no_text_becomes_empty_and_no_row_is_lost(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    result = apply(build(name, knobs, 1.0), texts, row_keys, context)
    assert len(result) == len(texts)
    assert all(after.strip() for before, after in zip(texts, result, strict=True) if before.strip())


@every_transform
def test_neutral_knobs_change_no_byte(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    cls = TRANSFORMS.get(name)
    if not cls.neutral and name != "identity":
        assert name == "nlpaug"  # what nlpaug's augmenters do at rest is theirs to say
        return
    assert apply(build(name, knobs | cls.neutral), texts, row_keys, context) == texts


@every_transform
def test_a_row_of_strength_0_stays_as_it_is(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    strength = (np.arange(len(texts)) % 2).astype(np.float64)
    result = apply(build(name, knobs, 0.5), texts, row_keys, replace(context, strength=strength))
    assert result[::2] == texts[::2]


@every_transform
def test_pickling_keeps_the_behaviour(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    transform, same_context = pickle.loads(pickle.dumps((build(name, knobs, 0.3), context)))
    assert transform.spec() == build(name, knobs, 0.3).spec() == TRANSFORMS.build(transform.spec()).spec()
    assert apply(transform, texts[:40], row_keys[:40], same_context) == apply(
        build(name, knobs, 0.3), texts[:40], row_keys[:40], context
    )


@every_strength
def test_protected_words_are_never_lost(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    before = context.read(texts, row_keys)
    assert before.protected.sum() > 20
    if name == "lm_sampling":  # a new text has to have the old one's negators and numbers only where that is asked for
        knobs = {**knobs, "keep": "protected"}
    after = build(name, knobs, 0.3)(before, context)
    kept, left = protected_words(before), protected_words(after)
    if name == "sentence_shuffle":  # they move with their sentences
        kept, left = [sorted(words) for words in kept], [sorted(words) for words in left]
    assert kept == left
    for text, needed, words in zip(
        after.texts(), protected_words(before), context.read(after.texts(), row_keys).tokens(), strict=True
    ):
        assert not Counter(needed) - Counter(words), text


def protected_words(batch: TextBatch) -> list[list[str]]:
    """Of every row, in order."""
    masks = np.split(batch.protected, batch.offsets[1:-1])
    return [
        [word for word, kept in zip(words, mask, strict=False) if kept]
        for words, mask in zip(batch.tokens(), masks, strict=True)
    ]


@every_strength
def test_change_grows_with_p(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    changed = [
        sum(a != b for a, b in zip(apply(build(name, knobs, p), texts, row_keys, context), texts, strict=True))
        for p in (0.02, 0.2, 0.8)
    ]
    assert changed == sorted(changed)
    able = len(texts)
    if build(name, knobs).loads_model:  # a text that lost a protected word is not taken
        able -= int((context.read(texts, row_keys).per_row(context.read(texts, row_keys).protected) > 0).sum())
    assert changed[2] > max(changed[0], 0.3 * able)


@every_strength
def test_change_grows_with_the_strength_of_a_row(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    changed = []
    for strength in (0.01, 0.3, 1.0):
        scaled = replace(context, strength=np.full(len(texts), strength))
        after = apply(build(name, knobs, 0.8), texts, row_keys, scaled)
        changed.append(sum(a != b for a, b in zip(after, texts, strict=True)))
    assert changed == sorted(changed)
    assert changed[2] > 1.5 * changed[0]


@every_strength
def test_another_key_or_slot_gives_another_result(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    transform = build(name, knobs, 0.5)
    first = apply(transform, texts, row_keys, context)
    assert first != apply(transform, texts, keys(row_keys, "other"), context)
    assert first != apply(transform, texts, row_keys, replace(context, slot="augment/0/1"))


@every_transform
def test_the_global_generators_are_left_alone(
    name: str, knobs: dict[str, Any], texts: list[str], row_keys: Any, context: InputContext
) -> None:
    random.seed(5)
    np.random.seed(5)
    apply(build(name, knobs, 0.3), texts, row_keys, context)
    after = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    assert after == (random.random(), np.random.rand())
