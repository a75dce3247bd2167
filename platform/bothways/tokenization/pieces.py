"""Pieces of texts, and the ids each had when it was first seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bothways.input_side.lookup import HashIndex
from bothways.seeding import U64, keys
from bothways.text import Bytes, Ints, ragged
from bothways.tokenization.templates import Ragged

CAPACITY = 1 << 17
"""Pieces remembered; when there are more, all are forgotten. About 10 MB."""
_LONG_CHARACTERS = 8 << 20  # of remembered pieces that fill more words; beyond, all pieces are forgotten, too
_WORDS = 4
"""64-bit words of a piece that are compared as numbers; a longer piece is found by its text."""
_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)  # of a little-endian word
_SHORT = 7  # bytes that leave one for the length: such a piece is its own key


def bytes_of(texts: pa.StringArray) -> tuple[Bytes, Ints]:
    """The UTF-8 bytes of N texts, one after the other, and where each begins, (N + 1,). A null is empty."""
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.empty(0, dtype=np.uint8), np.zeros(len(texts) + 1, dtype=np.int64)
    bounds = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]], bounds - bounds[0]


def cut(data: Bytes, offsets: Ints, ideographs_apart: bool) -> tuple[Ints, Ints]:
    """Where pieces start and stop in UTF-8 text whose rows are `data[offsets[i] : offsets[i + 1]]`.

    Cut at the four white spaces that every tokenizer knows, and around U+4E00 … U+9FFF when `ideographs_apart`.
    """
    space = (data == 0x20) | (data - np.uint8(0x09) < 2) | (data == 0x0D)
    edge = np.zeros(data.size + 1, dtype=bool)
    np.not_equal(space[1:], space[:-1], out=edge[1:-1])
    edge[offsets] = True
    if ideographs_apart:
        # U+4E00 is E4 B8 80 and U+9FFF is E9 BF BF; E4 with a lower second byte begins U+4000 … U+4DFF.
        lead = np.flatnonzero((data >= 0xE4) & (data <= 0xE9))
        lead = lead[(data[lead] > 0xE4) | (data[lead + 1] >= 0xB8)]
        edge[lead] = True
        edge[lead + 3] = True
    bounds = np.flatnonzero(edge)
    starts, stops = bounds[:-1], bounds[1:]
    filled = np.flatnonzero(~space[starts])
    return starts[filled], stops[filled]


class Pieces:
    """Texts to ids, piece by piece. `tokenize`: the ids of each of some pieces, asked for those not remembered.

    A piece is found by a hash and then compared byte by byte, so that none is ever mistaken for another.
    """

    def __init__(self, tokenize: Callable[[list[str]], Sequence[Sequence[int]]], *, ideographs_apart: bool) -> None:
        self._tokenize = tokenize
        self._ideographs_apart = ideographs_apart
        self._forget()

    def _forget(self) -> None:
        self._index = HashIndex.of(np.empty(0, dtype=np.uint64))
        self._long: dict[str, int] = {}  # the numbers of pieces of more than `_WORDS` words
        self._long_size = 0
        self._hashes, self._words, self._lengths = _Growing(np.uint64), _Growing(np.uint64, _WORDS), _Growing(np.int64)
        self._ids, self._firsts, self._counts = _Growing(np.int32), _Growing(np.int64), _Growing(np.int64)

    def __len__(self) -> int:
        """Pieces remembered."""
        return self._counts.size

    def __call__(self, texts: pa.StringArray) -> Ragged:
        """The ids of each text, without special tokens."""
        if len(self) > CAPACITY or self._ids.size > 4 * CAPACITY or self._long_size > _LONG_CHARACTERS:
            self._forget()
        data, offsets = bytes_of(texts)
        starts, stops = cut(data, offsets, self._ideographs_apart)
        padded = np.append(data, np.zeros(8 * (_WORDS + 1), dtype=np.uint8))
        number = self._numbers(padded, starts, stops - starts)
        counts = np.take(self._counts.values, number)
        ids = np.take(self._ids.values, ragged(np.take(self._firsts.values, number), counts))
        before = np.append(0, np.cumsum(counts))
        return Ragged(ids, np.diff(before[np.searchsorted(starts, offsets)]))

    def _numbers(self, padded: Bytes, starts: Ints, lengths: Ints) -> Ints:
        """The number of each piece; those not remembered are tokenised and get one."""
        own = _words(padded, starts, lengths, 1)[:, 0] | lengths.astype(np.uint64) << np.uint64(8 * _SHORT)
        hashes = keys(own)  # one to one: a short piece needs no comparison
        wordy = np.flatnonzero(lengths > _SHORT)
        words = _words(padded, starts[wordy], lengths[wordy], _WORDS)
        hashes[wordy] = keys(lengths[wordy], *words.T)
        number = self._index.find(hashes)
        hit = np.flatnonzero(number >= 0)
        number[hit[np.take(self._lengths.values, number[hit]) != lengths[hit]]] = -1
        hit = np.flatnonzero(number[wordy] >= 0)
        number[wordy[hit[(self._words.values[number[wordy[hit]]] != words[hit]).any(axis=1)]]] = -1
        for piece in np.flatnonzero(lengths > 8 * _WORDS).tolist():
            number[piece] = self._long.get(_text(padded, starts[piece], lengths[piece]), -1)
        missing = np.flatnonzero(number < 0)
        if missing.size:
            number[missing] = self._learnt(padded, starts[missing], lengths[missing], hashes[missing])
        return number

    def _learnt(self, padded: Bytes, starts: Ints, lengths: Ints, hashes: U64) -> Ints:
        """The numbers of pieces not remembered until now."""
        texts = [_text(padded, start, length) for start, length in zip(starts, lengths, strict=True)]
        first = {text: at for at, text in reversed(list(enumerate(texts)))}
        number = {text: len(self) + count for count, text in enumerate(first)}
        at = np.fromiter(first.values(), dtype=np.int64, count=len(first))
        found = self._tokenize(list(first))
        counts = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        long = {texts[place]: number[texts[place]] for place in at[lengths[at] > 8 * _WORDS].tolist()}
        self._long |= long
        self._long_size += sum(map(len, long))
        self._firsts.extend(self._ids.size + np.cumsum(counts) - counts)
        self._counts.extend(counts)
        self._ids.extend(np.fromiter(chain.from_iterable(found), dtype=np.int32, count=int(counts.sum())))
        self._lengths.extend(lengths[at])
        self._words.extend(_words(padded, starts[at], lengths[at], _WORDS))
        self._hashes.extend(hashes[at])
        if 2 * len(self) > self._index.slots.size:
            self._index = HashIndex.of(self._hashes.values)
        else:
            self._index.put(hashes[at], np.fromiter(number.values(), dtype=np.int32, count=len(number)))
        return np.fromiter((number[text] for text in texts), dtype=np.int64, count=len(texts))


def _text(data: Bytes, start: int, length: int) -> str:
    return data[start : start + length].tobytes().decode()


def _words(padded: Bytes, starts: Ints, lengths: Ints, count: int) -> U64:
    """The first `count` 64-bit words of each piece's bytes, zeros behind its end, (K, count). `padded` goes on for
    `count` words behind the last piece."""
    every = np.ndarray((padded.size - 7,), dtype="<u8", buffer=padded, strides=(1,))  # the word at every byte
    return np.stack(
        [every[starts + 8 * n] & _FIRST_BYTES[np.clip(lengths - 8 * n, 0, 8)] for n in range(count)], axis=1
    )


class _Growing:
    """An array that values are put at the end of. Its room doubles."""

    def __init__(self, dtype: npt.DTypeLike, *width: int) -> None:
        self._room = np.empty((1024, *width), dtype=dtype)
        self.size = 0

    @property
    def values(self) -> npt.NDArray[Any]:
        return self._room[: self.size]

    def extend(self, values: npt.NDArray[Any]) -> None:
        size = self.size + len(values)
        if size > len(self._room):
            room = np.empty((2 * size, *self._room.shape[1:]), dtype=self._room.dtype)
            room[: self.size] = self.values
            self._room = room
        self._room[self.size : size] = values
        self.size = size
