"""What the training rows say about words: counts and inverse document frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bothways.input_side.examples import Examples
from bothways.input_side.label_words import LabelWords
from bothways.input_side.lookup import HashIndex, token_hashes
from bothways.input_side.protection import negators_and_numbers
from bothways.seeding import F64, U64, below
from bothways.text import Bytes, Codes, Ints, Segmentation, TextBatch, decoded, gathered, kinds_of


@dataclass(frozen=True, eq=False)
class Lottery:
    """V things drawn in proportion to whole-number weights. `cumulative` (V,) is the weights' running sum; `guide` says
    from where on to search it for each bucket of 2**`shift` tickets (Chen & Asau 1974)."""

    cumulative: Ints
    guide: npt.NDArray[np.int32]
    shift: int

    @classmethod
    def of(cls, cumulative: Ints) -> Lottery:
        total = int(cumulative[-1])
        shift = max(0, total.bit_length() - (8 * cumulative.size).bit_length())
        buckets = np.arange((total >> shift) + 1) << shift
        return cls(cumulative, np.searchsorted(cumulative, buckets, side="right").astype(np.int32), shift)

    def draw(self, bits: U64) -> Ints:
        """One for each 64 random bits."""
        ticket = below(bits, int(self.cumulative[-1]))
        found = np.take(self.guide, ticket >> self.shift).astype(np.int64)
        short = np.flatnonzero(np.take(self.cumulative, found) <= ticket)
        while short.size:
            found[short] += 1
            short = short[self.cumulative[found[short]] <= ticket[short]]
        return found


@dataclass(frozen=True, eq=False)
class Statistics:
    """The vocabulary of V words (case kept) of N training rows; picklable.

    `codes`, `offsets` (V + 1,): the words' code points. `hashes` (V,). `counts` (V,): how often each occurs.
    `idf` (V,): log(N / rows that hold it). Negators and numbers are not in it: to sample one would change the label.
    `label_words`: those that carry the label, None where nobody has asked for them.
    `examples`: the rows themselves, where a transform asks for them.
    """

    codes: Codes
    offsets: Ints
    hashes: U64
    counts: Ints
    idf: F64
    rows: int
    label_words: LabelWords | None = None
    examples: Examples | None = None

    @classmethod
    def of(cls, texts: Sequence[str], segmentation: Segmentation = "character") -> Statistics:
        """Counts the words of training texts."""
        batch = TextBatch.from_texts(texts, None, segmentation)
        tokens = np.flatnonzero(batch.is_word & ~negators_and_numbers(batch))
        hashes, first, which, counts = np.unique(
            token_hashes(batch, tokens), return_index=True, return_inverse=True, return_counts=True
        )
        seen = np.unique(which.astype(np.int64) * max(1, len(batch)) + batch.rows_of(tokens)) // max(1, len(batch))
        codes, lengths = batch.words(tokens[first])
        return cls(
            codes=codes,
            offsets=np.append(0, np.cumsum(lengths)),
            hashes=hashes,
            counts=counts.astype(np.int64),
            idf=np.log(len(batch) / np.bincount(seen, minlength=hashes.size)),
            rows=len(batch),
        )

    def __len__(self) -> int:
        return int(self.counts.size)

    @cached_property
    def index(self) -> HashIndex:
        return HashIndex.of(self.hashes)

    @cached_property
    def unigrams(self) -> Lottery:
        """A word in proportion to its frequency."""
        return Lottery.of(np.cumsum(self.counts))

    @cached_property
    def uninformative(self) -> Lottery:
        """A word that says little, in proportion to max S - S(w), S(w) = count(w) idf(w): UDA's sampling."""
        score = self.counts * self.idf
        weight = score.max() - score if len(self) else score
        total = weight.sum()
        share = weight / total if total > 0 else np.full(len(self), 1.0 / max(1, len(self)))
        return Lottery.of(np.ceil(np.cumsum(share) * 2.0**31).astype(np.int64))

    @cached_property
    def lengths(self) -> Ints:
        """Of each word, in characters, (V,)."""
        return np.diff(self.offsets)

    @cached_property
    def kinds(self) -> Bytes:
        """Of each word as a token, (V,)."""
        return kinds_of(self.codes, self.lengths)

    def words(self, numbers: Ints) -> tuple[Codes, Ints, Bytes]:
        """These words as new tokens: their code points one after the other, their lengths and their kinds."""
        starts, lengths = np.take(self.offsets, numbers), np.take(self.lengths, numbers)
        return gathered(self.codes, starts, starts + lengths), lengths, np.take(self.kinds, numbers)

    def vocabulary(self) -> list[str]:
        """The words as strings, for people and tests."""
        return [decoded(self.codes[a:b]) for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)]
