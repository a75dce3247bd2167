"""A vocabulary map learned from two corpora: which words are each domain's own, and which of them mean alike.

Own words: log-odds ratios with an informative Dirichlet prior (see `log_odds`). Alike: mutual nearest neighbours among
word vectors, by cosines less the mean cosine to each one's ten neighbours (CSLS, Conneau et al. 2018), which keeps hubs
from being everybody's. Forms of one word, told by their first letters, are not paired,
nor are WordNet's antonyms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bothways.errors import UserError
from bothways.input_side.log_odds import log_odds
from bothways.input_side.lookup import fold, word_hashes
from bothways.input_side.protection import negators_and_numbers
from bothways.input_side.stop_words import says_little
from bothways.lexicons import antonyms
from bothways.seeding import F64
from bothways.text import Bools, Ints, Segmentation, TextBatch, decoded

Vectors = npt.NDArray[np.floating[Any]]

_NEIGHBOURS = 10
_SHORTEST = 3  # letters of a Latin word that is worth a map


class DomainWords(NamedTuple):
    """V words in lower case, how often each occurs in the source and in the target, and its z: above 0 where it is the
    source's own, below where it is the target's."""

    words: list[str]
    source: Ints
    target: Ints
    z: F64


class Pair(NamedTuple):
    """`similarity`: cosine of the two vectors. `z_source`, `z_target`: how much each is its own domain's, both > 0."""

    source: str
    target: str
    similarity: float
    z_source: float
    z_target: float


def domain_words(
    source: Sequence[str],
    target: Sequence[str],
    *,
    language: str = "en",
    least: int = 5,
    prior: float = 0.01,
) -> DomainWords:
    """The content words of both corpora that occur at least `least` times, with their log-odds."""
    segmentation: Segmentation = "word" if language == "zh" else "character"
    batch = TextBatch.from_texts([*source, *target], None, segmentation)
    tokens = np.flatnonzero(batch.is_word & ~negators_and_numbers(batch))
    tokens = tokens[~says_little(batch, tokens, language)]
    codes, lengths = batch.words(tokens)
    codes = fold(codes)
    _, first, terms = np.unique(word_hashes(codes, lengths), return_index=True, return_inverse=True)
    ours = batch.rows_of(tokens) < len(source)
    here, there = (np.bincount(terms[part], minlength=first.size) for part in (ours, ~ours))
    ends = np.cumsum(lengths)
    latin = codes[ends - lengths] < 0x2E80
    long_enough = (lengths >= _SHORTEST) | (~latin & (lengths >= 2))
    kept = np.flatnonzero((here + there >= least) & long_enough[first])
    here, there, first = here[kept], there[kept], first[kept]
    words = [decoded(codes[ends[i] - lengths[i] : ends[i]]) for i in first.tolist()]
    return DomainWords(words, here, there, log_odds(here, there, prior))


def pairs(
    found: DomainWords, vectors: Vectors, *, z: float = 2.58, similarity: float = 0.3, size: int = 3000
) -> list[Pair]:
    """Words of the source with their counterparts of the target, the most alike first.

    `vectors` (V, d): those of `found.words`, zero for a word that has none. `z`: what is a domain's own; the `size`
    words that are most so are paired. `similarity`: the least cosine of a pair, common mean taken off.
    """
    known = np.flatnonzero(np.abs(vectors).sum(axis=1) > 0)
    if not known.size:
        return []
    centred = vectors[known] - vectors[known].mean(axis=0)
    centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    order = np.argsort(-np.abs(found.z[known]), kind="stable")
    ours = order[found.z[known][order] >= z][:size]
    theirs = order[found.z[known][order] <= -z][:size]
    if not ours.size or not theirs.size:
        return []
    cosine = centred[ours] @ centred[theirs].T
    scaled = 2.0 * cosine - _near(cosine)[:, None] - _near(cosine.T)[None, :]
    scaled[_forms_of_one(found.words, known[ours], known[theirs])] = -np.inf
    scaled[_opposites(found.words, known[ours], known[theirs])] = -np.inf
    best = scaled.argmax(axis=1)
    mutual = np.flatnonzero((scaled.argmax(axis=0)[best] == np.arange(ours.size)) & np.isfinite(scaled.max(axis=1)))
    alike = cosine[mutual, best[mutual]]
    return [
        Pair(
            found.words[known[ours[i]]],
            found.words[known[theirs[best[i]]]],
            float(cosine[i, best[i]]),
            float(found.z[known[ours[i]]]),
            float(-found.z[known[theirs[best[i]]]]),
        )
        for i in mutual[np.argsort(-alike, kind="stable")].tolist()
        if cosine[i, best[i]] >= similarity
    ]


def _forms_of_one(words: list[str], ours: Ints, theirs: Ints) -> Bools:
    """Latin words that begin with the same four letters, or, if one has at most five, with the same three, (n, m)."""
    latin = np.array([word[0] < "\u2e80" for word in words])
    short = np.array([len(word) <= 5 for word in words])
    four, three = (np.unique([word[:n] for word in words], return_inverse=True)[1] for n in (4, 3))
    same = three[ours][:, None] == three[theirs][None, :]
    same &= short[ours][:, None] | short[theirs][None, :] | (four[ours][:, None] == four[theirs][None, :])
    return np.asarray(same & latin[ours][:, None])


def _opposites(words: list[str], ours: Ints, theirs: Ints) -> tuple[list[int], list[int]]:
    """Pairs that WordNet calls antonyms, as row and column: what stands near `bad` is `good`."""
    column = {words[at]: j for j, at in enumerate(theirs.tolist())}
    table = antonyms()
    hits = [(i, column[o]) for i, at in enumerate(ours.tolist()) for o in table.of(words[at]) if o in column]
    return [i for i, _ in hits], [j for _, j in hits]


def _near(cosine: Vectors) -> Vectors:
    """The mean cosine to the nearest neighbours, of each row."""
    k = min(_NEIGHBOURS, cosine.shape[1])
    return np.asarray(np.partition(cosine, -k, axis=1)[:, -k:].mean(axis=1))


def learn(
    source: Sequence[str],
    target: Sequence[str],
    table: Mapping[str, int],
    vectors: Vectors,
    *,
    language: str = "en",
    **limits: Any,
) -> list[Pair]:
    """A map from the words of `source` to those of `target`. `vectors` (n, d): a table such as GloVe's, or a model's
    input embeddings; `table`: a word's row in it. `limits`: of `domain_words` and `pairs`. Raises `UserError` when no
    word of the corpora has a vector."""
    about = {name: limits.pop(name) for name in ("least", "prior") if name in limits}
    found = domain_words(source, target, language=language, **about)
    rows = np.array([table.get(word, -1) for word in found.words], dtype=np.int64)
    if not (rows >= 0).any():
        raise UserError("no word of the two corpora has a vector: are they of the language the vectors are of?")
    chosen = np.where(rows[:, None] >= 0, vectors[np.maximum(rows, 0)], 0.0)
    return pairs(found, chosen, **limits)
