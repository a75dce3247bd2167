"""Words as 64-bit hashes, and a table that finds thousands of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bothways.seeding import U64, keys, word
from bothways.text import Bools, Codes, Ints, TextBatch, ragged

_LAST_CASED = 0x1E943
_STRETCH = 1 << 16  # characters of a text whose powers are at hand


@cache
def _folded() -> npt.NDArray[np.uint32]:
    """The lower-case code point of each code point that has a single one, (0x1E944,)."""
    lower = (chr(code).lower() for code in range(_LAST_CASED + 1))
    return np.array([ord(c) if len(c) == 1 else code for code, c in enumerate(lower)], dtype=np.uint32)


def fold(codes: Codes) -> npt.NDArray[np.uint32]:
    """Code points in lower case."""
    if codes.dtype == np.uint8:
        return np.take(_folded(), codes)
    wide = codes.astype(np.uint32)
    cased = np.flatnonzero(wide <= _LAST_CASED)
    wide[cased] = _folded()[wide[cased]]
    return wide


@cache
def _powers(n: int) -> U64:
    return np.multiply.accumulate(np.full(n, word("word hash") | np.uint64(1), dtype=np.uint64))


@cache
def _values() -> U64:
    """A random value for each of the first 0x10000 code points."""
    return keys("character", np.arange(0x10000, dtype=np.uint64))


def word_hashes(codes: Codes, lengths: Ints) -> U64:
    """A 64-bit hash of each word: their code points one after the other, and their lengths (K,), none 0.

    A polynomial in a random base over random values of the characters; a false match among 10^5 words has
    probability about 10^-14.
    """
    if not lengths.size:
        return np.empty(0, dtype=np.uint64)
    powers = _powers(1 << int(lengths.max()).bit_length())
    values = _values_of(codes)
    values *= np.take(powers, ragged(np.zeros_like(lengths), lengths))
    return np.add.reduceat(values, np.cumsum(lengths) - lengths)


def _values_of(codes: Codes) -> U64:
    """The random value of each of these code points."""
    if codes.dtype == np.uint8 or codes.max() < 0x10000:
        return np.take(_values(), codes)
    return keys("character", codes)


@cache
def _inverse_powers() -> U64:
    """1 and what the first powers are to be multiplied with to make 1, (_STRETCH,)."""
    inverse = np.uint64(pow(int(_powers(1)[0]), -1, 1 << 64))
    return np.append(np.uint64(1), np.multiply.accumulate(np.full(_STRETCH - 1, inverse)))


def token_hashes(batch: TextBatch, tokens: Ints) -> U64:
    """`word_hashes` of these tokens' words, (K,): for less where they are most of a batch's. One running sum goes
    through the text, each character weighed by its place; a word is a difference of two, weighed back by its own."""
    weighed = _values_of(batch.codes)
    for begin in range(0, weighed.size, _STRETCH):
        stretch = weighed[begin : begin + _STRETCH]
        stretch *= _powers(_STRETCH)[: stretch.size]
    sums = np.cumsum(weighed, out=weighed)
    starts, stops = np.take(batch.starts[:, 1], tokens), np.take(batch.stops[:, 1], tokens)
    found = np.take(sums, stops - 1)
    found -= np.take(sums, starts - 1)
    found *= np.take(_inverse_powers(), starts & (_STRETCH - 1))
    across = np.flatnonzero((starts ^ (stops - 1)) >= _STRETCH)  # from one stretch into the next: very few
    found[across] = word_hashes(*batch.words(tokens[across]))
    return found


@dataclass(frozen=True, eq=False)
class HashIndex:
    """From hashes to the numbers of the words that were put in; open addressing, looked up in rounds over arrays."""

    slots: U64
    numbers: npt.NDArray[np.int32]

    @classmethod
    def of(cls, hashes: U64) -> HashIndex:
        """`hashes[i]` is found as i; of equal hashes, the last."""
        bits = max(4, int(hashes.size * 2).bit_length())
        index = cls(np.zeros(1 << bits, dtype=np.uint64), np.full(1 << bits, -1, dtype=np.int32))
        unique, last = np.unique(hashes[::-1], return_index=True)
        index.put(unique, (hashes.size - 1 - last).astype(np.int32))
        return index

    def put(self, hashes: U64, numbers: npt.NDArray[np.int32]) -> None:
        """In place: `hashes[i]` is found as `numbers[i]`, unless it is there already. Half the slots must stay free."""
        mask = self.slots.size - 1
        at = (hashes >> np.uint64(64 - mask.bit_length())).astype(np.int64)
        while hashes.size:
            empty = np.flatnonzero(self.numbers[at] < 0)
            self.slots[at[empty]], self.numbers[at[empty]] = hashes[empty], numbers[empty]  # for a slot, one wins
            lost = self.slots[at] != hashes
            hashes, numbers, at = hashes[lost], numbers[lost], (at[lost] + 1) & mask

    def find(self, hashes: U64) -> Ints:
        """The number of each word, -1 for an unknown one, (K,)."""
        mask = self.slots.size - 1
        at = (hashes >> np.uint64(64 - mask.bit_length())).view(np.int64)
        found = np.take(self.numbers, at)
        pending = np.flatnonzero(np.take(self.slots, at) != hashes)
        pending = pending[found[pending] >= 0]
        while pending.size:
            at[pending] = (at[pending] + 1) & mask
            found[pending] = self.numbers[at[pending]]
            pending = pending[(found[pending] >= 0) & (self.slots[at[pending]] != hashes[pending])]
        return found.astype(np.int64)


@dataclass(frozen=True, eq=False)
class WordSet:
    """Membership of words, upper case or lower."""

    index: HashIndex

    @classmethod
    def of(cls, words: list[str]) -> WordSet:
        codes = np.array([ord(c) for w in words for c in w.lower()], dtype=np.uint32)
        return cls(HashIndex.of(word_hashes(codes, np.array([len(w.lower()) for w in words], dtype=np.int64))))

    def holds(self, codes: Codes, lengths: Ints) -> Bools:
        return self.index.find(word_hashes(fold(codes), lengths)) >= 0


class Matches(NamedTuple):
    """K words of a batch that a table knows: the first token of each, how many tokens it takes, and its number."""

    tokens: Ints
    spans: Ints
    numbers: Ints


def longest_matches(index: HashIndex, batch: TextBatch, tokens: Ints, joined: Bools, longest: int) -> Matches:
    """Which of `tokens` (sorted) begin a known word, the longest each, none overlapping. A word goes on over up to
    `longest` tokens, each of those behind the first one `joined` (T,) to the one before it."""
    spans = np.ones(tokens.size, dtype=np.int64)
    numbers = index.find(_hashes(batch, tokens[:, None]))
    alive = np.ones(tokens.size, dtype=bool)
    for n in range(2, longest + 1):
        alive &= joined[np.minimum(tokens + n - 1, batch.kinds.size - 1)]
        some = np.flatnonzero(alive)
        if not some.size:
            break
        found = index.find(_hashes(batch, tokens[some, None] + np.arange(n)))
        longer = some[found >= 0]
        spans[longer], numbers[longer] = n, found[found >= 0]
    hit = np.flatnonzero(numbers >= 0)
    tokens, spans, numbers = tokens[hit], spans[hit], numbers[hit]
    if hit.size and spans.max() > 1:
        ends = np.maximum.accumulate(tokens + spans)
        clear = np.append(True, tokens[1:] >= ends[:-1])
        tokens, spans, numbers = tokens[clear], spans[clear], numbers[clear]
    return Matches(tokens, spans, numbers)


def _hashes(batch: TextBatch, tokens: Ints) -> U64:
    """Hashes of words of n tokens each, `tokens` (K, n)."""
    codes, lengths = batch.words(tokens.reshape(-1))
    return word_hashes(fold(codes), lengths.reshape(tokens.shape).sum(axis=1))
