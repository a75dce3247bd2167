"""Candidate phrases of many texts at once and what they score, as arrays over words, terms and phrases.

A term is a word of one row, whatever its case. Papers and choices: see `reconstruct/extract_keyphrases.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.input_side.graph_ranking import pagerank
from bothways.input_side.lookup import fold, word_hashes
from bothways.input_side.sentences import Sentences, sentences
from bothways.input_side.stop_words import says_little
from bothways.seeding import F64, U64, keys
from bothways.text import IDEOGRAPH, Bools, Ints, TextBatch

_WINDOW = 2  # TextRank: words this near each other are neighbours


@dataclass(frozen=True, eq=False)
class Words:
    """W words of a batch. `tokens`, `rows`, `terms`, `sentence` (W,); `begins`: no word touches it from the left.
    Of the V terms: `term_rows`, `stops`: stop words, `counts`."""

    batch: TextBatch
    tokens: Ints
    rows: Ints
    terms: Ints
    sentence: Ints
    begins: Bools
    sentences: Sentences
    term_rows: Ints
    stops: Bools
    counts: Ints

    @classmethod
    def of(cls, batch: TextBatch, language: str) -> Words:
        batch, found = sentences(batch)
        tokens = np.flatnonzero(batch.is_word)
        rows = batch.rows_of(tokens)
        codes, lengths = batch.words(tokens)
        first, terms = _numbered(word_hashes(fold(codes), lengths), rows)
        stops = np.zeros(first.size, dtype=bool)
        stops[terms[says_little(batch, tokens, language)]] = True
        return cls(
            batch=batch,
            tokens=tokens,
            rows=rows,
            terms=terms,
            sentence=found.at(tokens),
            begins=np.append(True, tokens[1:] != tokens[:-1] + 1)[: tokens.size] | _apart(batch, tokens),
            sentences=found,
            term_rows=rows[first],
            stops=stops,
            counts=np.bincount(terms, minlength=first.size),
        )

    def neighbours(self) -> Ints:
        """Words that the next one touches."""
        return np.flatnonzero(~self.begins[1:])


def _numbered(hashes: U64, rows: Ints) -> tuple[Ints, Ints]:
    """The first word of each term, (V,), and the term of each word, (W,). The order of a row's terms is its own, and
    with it the order in which its numbers are added up."""
    order = np.lexsort((hashes, rows))
    new = np.append(True, (hashes[order[1:]] != hashes[order[:-1]]) | (rows[order[1:]] != rows[order[:-1]]))
    terms = np.empty(order.size, dtype=np.int64)
    terms[order] = np.cumsum(new[: order.size]) - 1
    return order[new[: order.size]], terms


def _apart(batch: TextBatch, tokens: Ints) -> Bools:
    """Chinese words after a space, which is a mark there."""
    gap = batch.starts[tokens, 0] != batch.stops[tokens, 0]
    return np.asarray(gap & (batch.kinds[tokens] == IDEOGRAPH))


@dataclass(frozen=True, eq=False)
class Phrases:
    """K different phrases: the word each first begins with, its number of words, its terms (K, n), -1 where it is
    shorter, and its cost: the lower the better."""

    first: Ints
    lengths: Ints
    terms: Ints
    cost: F64

    def best(self, n: int, words: Words) -> Ints:
        """Up to n phrases of each row without a word in common, row after row, the best first."""
        rows = words.rows[self.first]
        order = np.lexsort((self.lengths, self.first, self.cost, rows))
        content = np.where(words.stops[self.terms], -1, self.terms)
        used = np.zeros(words.stops.size + 1, dtype=bool)  # -1 stands for the last, which is never used
        chosen = []
        for _ in range(n):
            order = order[~used[content[order]].any(axis=1)]
            if not order.size:
                break
            picked = order[np.append(True, rows[order[1:]] != rows[order[:-1]])]
            used[content[picked]] = True
            used[-1] = False
            chosen.append(picked)
        found = np.concatenate(chosen) if chosen else order
        return found[np.argsort(rows[found], kind="stable")]


def yake(words: Words, longest: int) -> Phrases:
    """Phrases of up to `longest` words, with YAKE!'s score. A stop word inside one costs what its company is unsure."""
    cost = _yake_terms(words)
    company = _company(words)
    parts = []
    for n in range(1, longest + 1):
        first, at = _windows(words, n)
        terms = words.terms[at]
        inside = words.stops[terms]
        unsure = np.where(inside, 1.0 - company[at], 0.0)
        product = np.where(inside, 1.0 + unsure, cost[terms]).prod(axis=1)
        total = np.where(inside, -unsure, cost[terms]).sum(axis=1)
        parts.append((first, terms, product / (1.0 + total)))
    return _phrases(parts, longest, shared=True)


def textrank(words: Words, longest: int) -> Phrases:
    """Phrases of up to `longest` words without a stop word, by the sum of their words' ranks."""
    rank = _textrank_terms(words)
    parts = []
    for n in range(1, longest + 1):
        first, at = _windows(words, n)
        terms = words.terms[at]
        plain = ~words.stops[terms].any(axis=1)
        parts.append((first[plain], terms[plain], -rank[terms[plain]].sum(axis=1)))
    return _phrases(parts, longest, shared=False)


def _windows(words: Words, n: int) -> tuple[Ints, Ints]:
    """Where n words in a row begin that touch each other, without a stop word at either end; and all n, (K, n)."""
    starts = np.arange(max(0, words.tokens.size - n + 1))
    keep = ~(words.stops[words.terms[starts]] | words.stops[words.terms[starts + n - 1]])
    for step in range(1, n):
        keep &= ~words.begins[starts + step]
    first = starts[keep]
    return first, first[:, None] + np.arange(n)


def _phrases(parts: list[tuple[Ints, Ints, F64]], longest: int, shared: bool) -> Phrases:
    """The different ones among occurrences; `shared`: a phrase's cost is divided by how often it occurs."""
    first = np.concatenate([part[0] for part in parts])
    terms = np.concatenate(
        [np.pad(part[1], ((0, 0), (0, longest - part[1].shape[1])), constant_values=-1) for part in parts]
    )
    lengths = np.repeat([part[1].shape[1] for part in parts], [part[0].size for part in parts])
    cost = np.concatenate([part[2] for part in parts])
    spelled = keys(*(terms[:, at] for at in range(longest)))
    _, where, counts = np.unique(spelled, return_index=True, return_counts=True)
    return Phrases(first[where], lengths[where], terms[where], cost[where] / counts if shared else cost[where])


def _yake_terms(words: Words) -> F64:
    """YAKE!'s S(t), (V,): case, position, frequency, relatedness to context, spread over sentences."""
    v, rows = words.stops.size, words.term_rows
    counts = words.counts.astype(np.float64)
    codes, lengths = words.batch.words(words.tokens)
    starts = np.cumsum(lengths) - lengths
    raised = fold(codes) != codes
    opens = np.append(True, words.sentence[1:] != words.sentence[:-1])[: words.tokens.size]
    shouted = np.logical_and.reduceat(raised, starts) & (lengths > 1) if raised.size else raised
    capital = np.bincount(words.terms, raised[starts] & ~opens, v)
    case = np.maximum(capital, np.bincount(words.terms, shouted, v)) / (1.0 + np.log(counts))
    n_rows = len(words.batch)
    content = np.where(words.stops, 0.0, 1.0)
    n = np.maximum(np.bincount(rows, content, n_rows), 1.0)
    mean = np.bincount(rows, content * counts, n_rows) / n
    deviation = np.sqrt(np.bincount(rows, content * (counts - mean[rows]) ** 2, n_rows) / n)
    frequency = counts / np.maximum((mean + deviation)[rows], 1e-9)
    highest = np.zeros(n_rows)
    np.maximum.at(highest, rows, counts)
    relatedness = 1.0 + _dispersion(words) * counts / highest[rows]
    median, several = _places(words)
    position = np.log(np.log(3.0 + median))
    spread = several / np.bincount(words.sentences.rows, minlength=n_rows)[rows]
    return np.asarray(relatedness * position / (case + (frequency + spread) / relatedness))


def _dispersion(words: Words) -> F64:
    """Different neighbours over neighbours, of the left and the right added up, (V,)."""
    left = words.neighbours()
    a, b = words.terms[left], words.terms[left + 1]
    v = words.stops.size
    pairs = np.unique(np.stack([a, b]), axis=1) if left.size else np.zeros((2, 0), dtype=np.int64)
    right = np.bincount(pairs[0], minlength=v) / np.maximum(np.bincount(a, minlength=v), 1)
    return np.asarray(right + np.bincount(pairs[1], minlength=v) / np.maximum(np.bincount(b, minlength=v), 1))


def _places(words: Words) -> tuple[F64, Ints]:
    """The median of the numbers (from 0) of the sentences a term is in, and how many those are, (V,)."""
    found = words.sentences
    number = words.sentence - np.searchsorted(found.rows, words.rows)
    order = np.lexsort((number, words.terms))
    terms, number = words.terms[order], number[order]
    new = np.append(True, (terms[1:] != terms[:-1]) | (number[1:] != number[:-1]))[: terms.size]
    terms, number = terms[new], number[new]
    several = np.bincount(terms, minlength=words.stops.size)
    first = np.cumsum(several) - several
    return (number[first + (several - 1) // 2] + number[first + several // 2]) / 2.0, several


def _company(words: Words) -> F64:
    """How sure a word is of both its neighbours, (W,): P(it | the left one) P(it | the right one)."""
    sure = np.ones(words.tokens.size)
    left = words.neighbours()
    a, b = words.terms[left], words.terms[left + 1]
    _, which, counts = np.unique(keys(a, b), return_inverse=True, return_counts=True)
    together = counts[which]
    sure[left + 1] *= together / words.counts[a]
    sure[left] *= together / words.counts[b]
    return sure


def _textrank_terms(words: Words) -> F64:
    """PageRank of the terms that are no stop words, (V,)."""
    v = words.stops.size
    content = ~words.stops[words.terms]
    ends = []
    for step in range(1, _WINDOW + 1):
        near = content[:-step] & content[step:] & (words.sentence[:-step] == words.sentence[step:])
        a, b = words.terms[:-step][near], words.terms[step:][near]
        ends.append(np.stack([a, b])[:, a != b])
    a, b = np.concatenate(ends, axis=1)
    degree = np.maximum(np.bincount(a, minlength=v) + np.bincount(b, minlength=v), 1)
    peers = np.maximum(np.bincount(words.term_rows, ~words.stops, len(words.batch)), 1.0)[words.term_rows]

    def spread(rank: F64) -> F64:
        rank = rank / degree
        return np.asarray(np.bincount(a, rank[b], v) + np.bincount(b, rank[a], v), dtype=np.float64)

    return pagerank(spread, peers)
