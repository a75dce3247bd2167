"""A tokenizer and its ids, as far as a corpus uses them.

A multilingual encoder is mostly vocabulary: four fifths of multilingual-e5-small are rows for pieces that a corpus in
one language never has (Abdaoui et al. 2020). Kept are the pieces that the corpus is read as, every special token, and
every single character (and each piece that has no such spelling), so that nothing becomes an unknown token that was
none before. What was read as kept pieces is read so still: a longest match (WordPiece) or a best path (Unigram) stays
one when others are gone. Other text is read as shorter pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from bothways.errors import UserError
from bothways.tokenization.templates import I32

_BATCH = 4096  # texts


@dataclass(frozen=True)
class Vocabulary:
    """Which ids of a tokenizer are kept: `packed` holds them in ascending order, little-endian int32.

    The new id of a token is the place of its old one.
    """

    packed: bytes

    @classmethod
    def of(cls, ids: Iterable[int]) -> Vocabulary:
        return cls(np.array(sorted(set(ids)), dtype="<i4").tobytes())

    @property
    def ids(self) -> I32:
        """(K,), ascending."""
        return np.frombuffer(self.packed, dtype="<i4")

    def new(self, old: int) -> int:
        """The new id of a kept token."""
        at = int(np.searchsorted(self.ids, old))
        assert at < self.ids.size and self.ids[at] == old, f"id {old} is not kept"
        return at


def used(backend: Tokenizer, columns: Iterable[pa.ChunkedArray]) -> Vocabulary:
    """What to keep of a tokenizer for these texts (nulls are left out). Raises `UserError` for one that builds its
    tokens out of others, as BPE does."""
    text = backend.to_str()
    own = Tokenizer.from_str(text)
    own.no_truncation()
    own.no_padding()
    kept = _always(json.loads(text))
    for texts in map(pa.ChunkedArray.drop_null, columns):
        for start in range(0, len(texts), _BATCH):
            for row in own.encode_batch_fast(texts.slice(start, _BATCH).to_pylist(), add_special_tokens=False):
                kept.update(row.ids)
    return Vocabulary.of(kept)


def _always(spec: Mapping[str, Any]) -> set[int]:
    """The ids that are kept whatever the texts: special tokens, single characters, pieces that these cannot spell, and
    the dearest piece, from which a Unigram model reckons what an unknown character costs."""
    model = spec["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    pieces = dict(_pieces(model))
    kept = {token["id"] for token in spec["added_tokens"]}
    kept |= {number for piece, number in pieces.items() if not _is_spelt(piece, prefix, pieces) or _is_byte(piece)}
    if model["type"] == "Unigram":
        kept.add(min(range(len(model["vocab"])), key=lambda number: float(model["vocab"][number][1])))
        kept.add(model["unk_id"])
    else:
        kept.add(model["vocab"][model["unk_token"]])
    return kept


def _pieces(model: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    match model["type"]:
        case "Unigram":
            return ((piece, number) for number, (piece, _) in enumerate(model["vocab"]))
        case "WordPiece":
            return dict(model["vocab"]).items()
    raise UserError(
        f"model.vocabulary: corpus is for WordPiece and Unigram tokenizers, this model has {model['type']}: use whole"
    )


def _is_spelt(piece: str, prefix: str, pieces: Mapping[str, int]) -> bool:
    """Whether a piece of several characters can be put together from pieces of one."""
    within = bool(prefix) and piece.startswith(prefix)
    letters = piece[len(prefix) :] if within else piece
    if len(letters) < 2:
        return False
    first = prefix + letters[0] if within else letters[0]
    return first in pieces and all(prefix + letter in pieces for letter in letters[1:])


def _is_byte(piece: str) -> bool:
    """`<0x0A>`: what a character without a piece is spelt in where the tokenizer falls back to bytes."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def pruned(backend: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer with the kept pieces under their new ids, and nothing else changed."""
    spec = json.loads(backend.to_str())
    model = spec["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][number] for number in vocabulary.ids if number < len(model["vocab"])]
        model["unk_id"] = vocabulary.new(model["unk_id"])
    else:
        kept = set(vocabulary.ids.tolist())
        model["vocab"] = {piece: vocabulary.new(number) for piece, number in _pieces(model) if number in kept}
    for token in spec["added_tokens"]:
        token["id"] = vocabulary.new(token["id"])
    if spec["padding"]:
        spec["padding"]["pad_id"] = vocabulary.new(spec["padding"]["pad_id"])
    _renumber(spec["post_processor"], vocabulary)
    return Tokenizer.from_str(json.dumps(spec))


def _renumber(part: Mapping[str, Any] | None, vocabulary: Vocabulary) -> None:
    """The ids in a post-processor: a template, BERT's or RoBERTa's two special tokens, or a sequence of these."""
    if part is None:
        return
    for inner in part.get("processors", ()):
        _renumber(inner, vocabulary)
    if part["type"] == "TemplateProcessing":
        for token in part["special_tokens"].values():
            token["ids"] = [vocabulary.new(number) for number in token["ids"]]
    for name in {"cls", "sep"} & part.keys():
        part[name][1] = vocabulary.new(part[name][1])
