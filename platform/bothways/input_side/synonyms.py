"""A thesaurus ready for whole batches: words found by hash, candidates picked and spelled as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from bothways.input_side.lookup import HashIndex, Matches, fold, longest_matches, word_hashes
from bothways.input_side.protection import NEGATORS, NEGATORS_ZH
from bothways.lexicons import SynonymTable, neighbours, synonyms
from bothways.seeding import U64, below
from bothways.text import IDEOGRAPH, Bools, Codes, Ints, TextBatch, ragged

_LONGEST_ZH = 4  # characters: 99 % of the thesaurus
_FUNCTION_WORDS = (  # EDA replaces none of these; most have a homograph in WordNet (he: helium, do: the musical note)
    "a about above after again all along although am among an and any are as at back be because been before being "
    "below between both but by can could did do does doing done down during each either else ever every few for "
    "from further get go goes going got had has have having he her here hers herself him himself his how however "
    "i if in into is it its itself just less let like many may me might mine more most much must my myself now of "
    "off on once one only or other our ours out over own same say she should since so some such than that the "
    "their theirs them themselves then there these they this those through thus to too two under until up upon us "
    "very was we well were what when where which while who whom whose why will with would yet you your yours "
    "yourself"
)


@dataclass(frozen=True, eq=False)
class Thesaurus:
    """`codes`, `spelling` (n + 1,): the words' code points. `offsets` (n + 1,), `candidates` (m,): CSR.
    `refused` (n,): negators, which no word may become."""

    index: HashIndex
    codes: npt.NDArray[np.uint32]
    spelling: Ints
    offsets: Ints
    candidates: npt.NDArray[np.int32]
    refused: Bools

    @classmethod
    def of(cls, table: SynonymTable) -> Thesaurus:
        width = max(1, table.words.dtype.itemsize // 4)
        matrix = np.ascontiguousarray(table.words).view(np.uint32).reshape(-1, width)
        lengths = np.count_nonzero(matrix, axis=1).astype(np.int64)
        codes = matrix[matrix != 0]
        chinese = matrix[:, 0] >= 0x3400  # a single character is seldom a word of its own
        usable = (np.diff(table.offsets) > 0) & (~chinese | (lengths > 1)) & ~np.isin(table.words, function_words())
        known = np.flatnonzero(usable)
        words = ragged(np.cumsum(lengths)[known] - lengths[known], lengths[known])
        index = HashIndex.of(word_hashes(fold(codes[words]), lengths[known]))
        index = HashIndex(index.slots, np.where(index.numbers < 0, -1, known[index.numbers]).astype(np.int32))
        return cls(
            index=index,
            codes=codes,
            spelling=np.append(0, np.cumsum(lengths)),
            offsets=np.asarray(table.offsets),
            candidates=np.asarray(table.candidates),
            refused=np.isin(table.words, NEGATORS) | np.array([any(c in NEGATORS_ZH for c in w) for w in table.words]),
        )

    def match(self, batch: TextBatch, tokens: Ints) -> Matches:
        """Which of `tokens` (sorted) begin a known word whose tokens are all free; the longest, none overlapping."""
        joined = batch.kinds == IDEOGRAPH
        if joined.any():
            joined &= batch.free & (batch.starts[:, 0] == batch.stops[:, 0])
            joined[1:] &= batch.kinds[:-1] == IDEOGRAPH
        return longest_matches(self.index, batch, tokens, joined, _LONGEST_ZH)

    def pick(self, numbers: Ints, bits: U64) -> Ints:
        """One candidate for each word, uniformly; -1 where it is refused."""
        first = self.offsets[numbers]
        picked = self.candidates[first + below(bits, self.offsets[numbers + 1] - first)].astype(np.int64)
        return np.where(self.refused[picked], -1, picked)

    def spelled(self, numbers: Ints) -> tuple[Codes, Ints]:
        """The code points of these words, one after the other, and their lengths."""
        lengths = self.spelling[numbers + 1] - self.spelling[numbers]
        return self.codes[ragged(self.spelling[numbers], lengths)], lengths


def function_words() -> list[str]:
    """English words that synonyms are neither looked up for nor of, as written in three cases."""
    words = _FUNCTION_WORDS.split()
    return words + [w.capitalize() for w in words] + [w.upper() for w in words]


@cache
def thesaurus(language: str) -> Thesaurus:
    """The language's thesaurus, built once per process."""
    return Thesaurus.of(synonyms(language))


@lru_cache(maxsize=8)
def embedding_thesaurus(model: str, language: str, similarity: float) -> Thesaurus:
    """Neighbours in a model's input embeddings, with a cosine of at least `similarity`, built once per process."""
    return Thesaurus.of(neighbours(model, language).above(similarity))


def capitalised_like(originals: Codes, codes: Codes, lengths: Ints) -> Codes:
    """`codes` of words with the first letter raised where the original's first letter (K,) is upper-case."""
    first = np.cumsum(lengths) - lengths
    raised = first[(fold(originals) != originals) & (codes[first] >= ord("a")) & (codes[first] <= ord("z"))]
    codes = codes.copy()
    codes[raised] -= ord("a") - ord("A")
    return codes
