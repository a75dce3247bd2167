"""A tokenizer for columns of texts."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from bothways.errors import UserError
from bothways.text import Ints
from bothways.tokenization.pieces import Pieces
from bothways.tokenization.templates import I32, Template, cut_to
from bothways.tokenization.vocabulary import Vocabulary, pruned

_CHARACTERWISE = {"BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"}
_SPLITS_AT_SPACE = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_SPLITS = _SPLITS_AT_SPACE | {"Punctuation", "Digits"}
_PROBES = (
    *(
        "",
        " ",
        "a",
        "the movie",
        "don't re-do",
        "it 's , well ... fine !",
        "A\tb\nc\rd\x0be\x0cf\x1cg\x85h",
        "a\u3000b",
    ),
    *(
        "\u00a0a\u2028b\u00adc\ufeff",
        "e\u0301 \u0301a Ａ１ ǅ ẞ İ Σς",
        "电影iPhone，不好看！\u0301字\u0301a",
        "字\U000e0100字\u200d",
    ),
    *(
        "㐀䷀一\u9fff豈𠀀가각",
        "👩\u200d🚀👍🏽 🇨🇳x",
        "x" * 40 + " " + "y" * 120,
        "हिन्दी שלום",
        "a[MASK]b [SEP] <mask> [UNK]字",
    ),
)


@functools.lru_cache(maxsize=8)
def tokenizer(path: str, vocabulary: Vocabulary | None = None) -> Any:
    """The fast tokenizer of a model directory, loaded once per process. Raises `UserError` when it has none.

    `vocabulary`: what is kept of its ids; None for all of them.
    """
    if vocabulary is not None:
        return _with(tokenizer(path), vocabulary)
    from transformers import AutoTokenizer  # with torch it takes seconds: not where a `Backend` is at hand

    try:
        loaded = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} has no tokenizer that transformers can load: {error}") from error
    if not loaded.is_fast:
        raise UserError(f"{path} has only a slow tokenizer; save a tokenizer.json beside it")
    return loaded


def _with(whole: Any, vocabulary: Vocabulary) -> Any:
    """A tokenizer of transformers, as far as `vocabulary` goes."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=pruned(whole.backend_tokenizer, vocabulary),
        model_input_names=whole.model_input_names,
        model_max_length=whole.model_max_length,
        **whole.special_tokens_map,
    )


@dataclass(frozen=True)
class Backend:
    """What an `Encoder` is made of, as far as other processes need be told. `text`: the tokenizer as its own library
    writes it. `typed`: whether the model reads the types of tokens."""

    text: str
    typed: bool


@functools.lru_cache(maxsize=8)
def backend(path: str, vocabulary: Vocabulary | None = None) -> Backend:
    """The `Backend` of a model directory, made once per process."""
    fast = tokenizer(path, vocabulary)
    return Backend(fast.backend_tokenizer.to_str(), typed="token_type_ids" in fast.model_input_names)


def encoder(path: str, vocabulary: Vocabulary | None = None) -> Encoder:
    """The `Encoder` of a model directory, made once per process."""
    return encoder_of(backend(path, vocabulary))


@functools.lru_cache(maxsize=8)
def encoder_of(backend: Backend) -> Encoder:
    """The `Encoder` that is made of it, once per process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core per worker: threads would only fight
    own = Tokenizer.from_str(backend.text)  # its padding and truncation are this module's to set
    own.no_padding()
    return Encoder(own, typed=backend.typed)


@dataclass(frozen=True)
class Encoded:
    """`ids`: list<int32> of N rows. `types`: which text each token is of, alike; None where no model input needs it."""

    ids: pa.ListArray
    types: pa.ListArray | None


class Encoder:
    """Texts to ids with special tokens, cut to length: what the tokenizer gives for them, to the last id.

    `backend`: a `tokenizers.Tokenizer` that does not pad. `typed`: whether the model reads the types of tokens. What is
    remembered of pieces is bounded and changes no result.
    """

    def __init__(self, backend: Tokenizer, *, typed: bool) -> None:
        self._backend = backend
        self._typed = typed
        self._typed_alone = typed and any(backend.encode("a").type_ids)  # XLNet: [CLS] is of a type of its own
        self._pieces: Pieces | None = None
        self._templates: dict[int, Template] = {}
        ideographs_apart = _reads_by_pieces(json.loads(backend.to_str()))
        if ideographs_apart is not None:
            self._pieces = Pieces(self._ids_of_pieces, ideographs_apart=ideographs_apart)
            if not self._proven():
                self._pieces = None

    @property
    def by_pieces(self) -> bool:
        """Whether pieces are looked up; else every text goes through the tokenizer whole."""
        return self._pieces is not None

    def __call__(self, max_length: int, *columns: pa.ChunkedArray) -> Encoded:
        """`columns`: one of texts, or two of pairs; a null is an empty text."""
        template = self._templates.get(len(columns))
        if self._pieces is None or template is None or max_length <= template.size:
            return self.whole(max_length, *columns)
        pieces = self._pieces
        texts = cut_to(max_length - template.size, [pieces(_one_array(column)) for column in columns])
        ids, types = template.filled(texts)
        return Encoded(_lists(ids.flat, ids.counts), _lists(types, ids.counts) if self._has_types(columns) else None)

    def whole(self, max_length: int, *columns: pa.ChunkedArray) -> Encoded:
        """The same by way of the tokenizer alone."""
        self._backend.enable_truncation(max_length)
        return self._encoded(self._backend.encode_batch_fast(_texts(columns)), columns)

    def placed(self, max_length: int, *columns: pa.ChunkedArray) -> tuple[Encoded, list[Encoding]]:
        """The same with the library's own rows, whose tokens know their places (`offsets`, in characters)."""
        self._backend.enable_truncation(max_length)
        found = self._backend.encode_batch(_texts(columns))
        return self._encoded(found, columns), found

    def windows(self, max_length: int, stride: int, *columns: pa.ChunkedArray) -> tuple[Encoded, list[Encoding], Ints]:
        """The same for pairs whose second text goes on in further rows; and how many rows each pair is, (N,)."""
        room = max_length - self._backend.num_special_tokens_to_add(is_pair=True)
        pairs = [(self._short(first, room // 2), second) for first, second in _texts(columns)]
        self._backend.enable_truncation(max_length, stride=stride, strategy="only_second")
        rows = [[row, *row.overflowing] for row in self._backend.encode_batch(pairs)]
        found = [window for row in rows for window in row]
        return self._encoded(found, columns), found, np.array([len(row) for row in rows], np.int64)

    def _short(self, text: str, most: int) -> str:
        """As much of a text as `most` tokens hold."""
        self._backend.no_truncation()
        while len(text) > most and len(read := self._backend.encode(text, add_special_tokens=False)) > most:
            text = text[: min(read.offsets[most - 1][1], len(text) - 1)]
        return text

    def pieces(self, texts: pa.ChunkedArray) -> pa.ListArray:
        """The ids of whole texts, without special tokens."""
        self._backend.no_truncation()
        found = self._backend.encode_batch_fast(_texts((texts,)), add_special_tokens=False)
        return self._encoded(found, (texts,)).ids

    def _encoded(self, found: list[Encoding], columns: tuple[pa.ChunkedArray, ...]) -> Encoded:
        types = pa.array([row.type_ids for row in found], pa.list_(pa.int32())) if self._has_types(columns) else None
        return Encoded(pa.array([row.ids for row in found], pa.list_(pa.int32())), types)

    def _has_types(self, columns: tuple[pa.ChunkedArray, ...]) -> bool:
        return self._typed_alone or (self._typed and len(columns) > 1)

    def _ids_of_pieces(self, pieces: list[str]) -> list[list[int]]:
        self._backend.no_truncation()
        return [piece.ids for piece in self._backend.encode_batch_fast(pieces, add_special_tokens=False)]

    def _proven(self) -> bool:
        """Finds where special tokens go, and tries everything out on texts that are hard to read."""
        try:
            (first, a), (second, b) = islice(self._single_tokens(), 2)
            for row, ids in ((self._backend.encode(first), [a]), (self._backend.encode(first, second), [a, b])):
                self._templates[len(ids)] = Template.of(row.ids, row.type_ids, ids)
        except ValueError:
            return False
        probes = pa.chunked_array([_PROBES]), pa.chunked_array([_PROBES[::-1]])
        return all(
            self(max_length, *probes[:count]) == self.whole(max_length, *probes[:count])
            for max_length in (9, 16, 4096)
            for count in (1, 2)
        )

    def _single_tokens(self) -> Iterator[tuple[str, int]]:
        """Words that are one token each, and their ids."""
        for word in sorted(self._backend.get_vocab(with_added_tokens=False)):
            if word.isalnum():
                (ids,) = self._ids_of_pieces([word])
                if len(ids) == 1:
                    yield word, ids[0]


def _reads_by_pieces(spec: Mapping[str, Any]) -> bool | None:
    """Whether a tokenizer that sets Chinese characters apart (or does not) reads piece by piece; None if neither.

    White space must part words whatever stands around it, and nothing that is looked for as a whole may hold any.
    """
    normalizers, splitters = (_flat(spec[part]) for part in ("normalizer", "pre_tokenizer"))
    kinds = {splitter["type"] for splitter in splitters}
    if (
        not {normalizer["type"] for normalizer in normalizers} <= _CHARACTERWISE
        or not kinds <= _SPLITS
        or not kinds & _SPLITS_AT_SPACE
        or spec["model"].get("dropout")
        or any(not re.fullmatch("[!-~]+", token["content"]) or token["single_word"] for token in spec["added_tokens"])
    ):
        return None
    return bool(normalizers and normalizers[0].get("handle_chinese_chars"))


def _flat(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The members of a sequence, or the thing itself."""
    if part is None:
        return []
    return [inner for name in ("normalizers", "pretokenizers") for inner in part.get(name, ())] or [part]


def _texts(columns: tuple[pa.ChunkedArray, ...]) -> list[Any]:
    """Texts, or pairs of them, as the tokenizers library takes them."""
    texts = [[text or "" for text in column.to_pylist()] for column in columns]
    return texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))


def _one_array(column: pa.ChunkedArray) -> pa.StringArray:
    return pa.concat_arrays(column.cast(pa.string()).chunks) if column.num_chunks != 1 else column.chunk(0)


def _lists(flat: I32, counts: Ints) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.append(0, np.cumsum(counts)).astype(np.int32), flat)
