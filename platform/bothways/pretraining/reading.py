"""What is read when a model is trained on texts without labels: the texts one by one, or pairs of their sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from bothways.input_side.preparation import NO_CLAIM, TokenBatch
from bothways.input_side.transform import again, chosen
from bothways.models.language_models import Checkpoint
from bothways.seeding import U64, below, keys
from bothways.text import Ints, TextBatch, decoded
from bothways.text.sentences import sentences
from bothways.tokenization import encoder


class Rows(Protocol):
    """Rows that a model learns from. `lengths`: about how many tokens each has, int64 (N,)."""

    @property
    def lengths(self) -> Ints: ...

    def batch(self, rows: Ints, row_keys: U64) -> TokenBatch:
        """Some of them, padded to the longest; what is random about them is drawn from their keys."""
        ...


class Texts:
    """A text is a row. `ids`: list<int32>."""

    def __init__(self, ids: pa.ListArray, checkpoint: Checkpoint) -> None:
        self._ids = ids
        self._checkpoint = checkpoint

    @property
    def lengths(self) -> Ints:
        return _lengths(self._ids)

    def batch(self, rows: Ints, row_keys: U64) -> TokenBatch:
        return collate(self._ids.take(pa.array(rows)), rows, row_keys, self._checkpoint)


class SentencePairs:
    """A sentence and the next one of its text are a row, and so is a text of one sentence. `pairs`: how many rows are
    pairs."""

    def __init__(self, texts: Sequence[str], max_length: int, checkpoint: Checkpoint) -> None:
        self._max_length = max_length
        self._checkpoint = checkpoint
        found, self._of_text = split(texts)
        self._sentences = pa.array(found, pa.string())
        follows = np.append(self._of_text[1:] == self._of_text[:-1], False)
        alone = np.bincount(self._of_text, minlength=len(texts))[self._of_text] == 1
        self._first = np.flatnonzero(follows | alone)
        self._paired = follows[self._first]
        self.pairs = int(self._paired.sum())
        self._lengths = _lengths(self._encoded(self._first, self._first + self._paired)[0])

    @property
    def lengths(self) -> Ints:
        return self._lengths

    def batch(self, rows: Ints, row_keys: U64) -> TokenBatch:
        """In half of the pairs the second sentence is one of another text, each of them as likely."""
        first, paired = self._first[rows], self._paired[rows]
        text = self._of_text[first]
        begin, stop = np.searchsorted(self._of_text, text), np.searchsorted(self._of_text, text, side="right")
        others = len(self._sentences) - (stop - begin)
        bits = keys(row_keys, "next sentence")
        unrelated = chosen(bits, 0.5) & paired & (others > 0)
        drawn = below(again(bits, "sentence"), np.maximum(others, 1))
        drawn += np.where(drawn >= begin, stop - begin, 0)
        ids, types = self._encoded(first, np.where(unrelated, drawn, first + paired))
        batch = collate(ids, rows, row_keys, self._checkpoint)
        claims = np.where(paired, unrelated.astype(np.int64), NO_CLAIM)
        return replace(batch, types=_padded(types, batch.ids.shape[1], 0), unrelated=claims)

    def _encoded(self, first: Ints, second: Ints) -> tuple[pa.ListArray, pa.ListArray]:
        """Ids of sentences and their seconds (none where that is the first itself), and which of the two each is of."""
        encode = encoder(self._checkpoint.path, self._checkpoint.vocabulary)
        alone = first == second
        places, ids, types = [], [], []
        for rows, columns in ((np.flatnonzero(~alone), (first, second)), (np.flatnonzero(alone), (first,))):
            texts = [pa.chunked_array([self._sentences.take(pa.array(at[rows]))]) for at in columns]
            found = encode(self._max_length, *texts)
            zeros = pa.array(np.zeros(len(found.ids.flatten()), np.int32))
            places.append(rows)
            ids.append(found.ids)
            types.append(found.types or pa.ListArray.from_arrays(found.ids.offsets, zeros))
        order = pa.array(np.argsort(np.concatenate(places)))
        return pa.concat_arrays(ids).take(order), pa.concat_arrays(types).take(order)


def split(texts: Sequence[str]) -> tuple[list[str], Ints]:
    """The sentences of all texts, and which text each is of. Every text has one at least."""
    batch, first = sentences(TextBatch.from_texts(texts))
    last = np.append(first[1:], batch.kinds.size) - 1
    ends = np.isin(last, batch.offsets[1:] - 1)  # what stands at the end of a row is not of its text
    begin, stop = batch.starts[first, 1], np.where(ends, batch.starts[last, 0], batch.stops[last, 1])
    found = [decoded(batch.codes[a:b]) for a, b in zip(begin.tolist(), stop.tolist(), strict=True)]
    return found, batch.rows_of(first)


def collate(ids: pa.ListArray, rows: Ints, row_keys: U64, checkpoint: Checkpoint) -> TokenBatch:
    """The texts `rows`, whose ids these are, padded to the longest."""
    real = np.arange(_lengths(ids).max(initial=1)) < _lengths(ids)[:, None]
    filled = _padded(ids, real.shape[1], checkpoint.pad_id)
    special = np.isin(filled, checkpoint.special) | ~real
    return TokenBatch(ids=filled, real=real, special=special, keys=row_keys, rows=np.asarray(rows, np.int64))


def _padded(lists: pa.ListArray, width: int, fill: int) -> Ints:
    real = np.arange(width) < _lengths(lists)[:, None]
    out = np.full(real.shape, fill, np.int64)
    out[real] = lists.flatten().to_numpy()
    return out


def _lengths(lists: pa.ListArray) -> Ints:
    return np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), np.int64)
