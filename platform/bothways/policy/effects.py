"""What a policy does to text, in numbers: how much it changes, what it loses, and how various its copies are.

Variety is measured over the changed texts and their originals together, so that the scale has an end: plain copies have
half of the distinct n-grams that the originals have alone, and a self-BLEU of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bothways import policy, seeding
from bothways.config import Experiment, Protect
from bothways.input_side.lookup import word_hashes
from bothways.input_side.protection import protect
from bothways.seeding import F64, U64, below, keys
from bothways.text import END, Bools, Ints, Segmentation, TextBatch

LEAST, MOST, SHARE = 64, 256, 100
"""A trial's sample is one in `SHARE` of the views it trains on, within these bounds: its cost stays below 1 %."""
ORDER = 4
"""The longest n-grams of BLEU."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Sums over texts and what became of them; those of parts add up to those of the whole.

    `protected`: negators, numbers and listed words of the originals. `lost`: how many of them are gone.
    """

    texts: int = 0
    changed: int = 0
    protected: int = 0
    lost: int = 0
    words_before: int = 0
    words_after: int = 0
    characters_before: int = 0
    characters_after: int = 0

    @classmethod
    def of(cls, before: Sequence[str], after: Sequence[str], listed: tuple[str, ...] = ()) -> Effects:
        """The sums over texts, pair by pair. Words of Chinese are its characters. `listed`: as in `Protect.words`."""
        old = protect(TextBatch.from_texts(before), Protect(words=listed))
        new = TextBatch.from_texts(after)
        return cls(
            texts=len(before),
            changed=sum(a != b for a, b in zip(before, after, strict=True)),
            protected=int(old.protected.sum()),
            lost=_missing(_words(old, old.protected), _words(new, new.kinds != END)),
            words_before=int(old.is_word.sum()),
            words_after=int(new.is_word.sum()),
            characters_before=sum(map(len, before)),
            characters_after=sum(map(len, after)),
        )

    def __add__(self, other: Effects) -> Effects:
        return Effects(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def metrics(self) -> dict[str, float]:
        """`changed`: share of the texts. `protected_lost`: share of the protected tokens. `words_ratio`,
        `characters_ratio`: the length afterwards in lengths before."""
        return {
            "changed": self.changed / max(1, self.texts),
            "protected_lost": self.lost / max(1, self.protected),
            "words_ratio": self.words_after / max(1, self.words_before),
            "characters_ratio": self.characters_after / max(1, self.characters_before),
        }


Judge = Callable[[pa.Table, pa.Table], Mapping[str, float]]
"""Rows (columns id, text, pair) as the model reads them, and a copy of each → metrics by name."""


@dataclass(frozen=True)
class Asked:
    """What a trial says of its copies beside their numbers. `always`: also where none is changed, as of plain copies.
    `judges`: models that are shown the copies too (see `policy.judges`)."""

    always: bool = False
    judges: tuple[Judge, ...] = ()


def of_copies(
    train: pa.Table, experiment: Experiment, statistics: policy.Statistics | None, asked: Asked | None = None
) -> dict[str, float]:
    """What the experiment's policy does to a sample of its own copies, beside their originals as the model reads them.

    `train`: columns id, text, pair, label. Returns the metrics of `Effects`, of `variety` and of the judges, each named
    `text/…`; nothing where no copy is augmented, unless `asked`. What is lost is counted also where the side does not
    protect it. The sample is drawn by the experiment's seed: all workers have the same.
    """
    side, optim, asked = experiment.input, experiment.optim, asked or Asked()
    augments = policy.augments(side)
    if not augments and not asked.always:
        return {}
    count = min(MOST, max(LEAST, optim.steps * optim.batch_size // SHARE))
    rows = train.take(pa.array(seeding.permutation(train.num_rows, experiment.seed, "effects")[:count]))
    ids = rows["id"].to_numpy().astype(np.int64)
    original = np.zeros_like(ids)
    drawn = 1 + below(keys(experiment.seed, "effects", ids), max(1, side.augment.n_aug)) if augments else original

    def read(copy: npt.NDArray[np.int64]) -> pa.Table:
        views = rows.append_column("epoch", pa.array(np.zeros(len(ids), np.int32)))
        views = views.append_column("copy", pa.array(copy.astype(np.int32)))
        language, seed, model = experiment.data.language, experiment.seed, experiment.model.source
        return policy.read(views, side=side, language=language, seed=seed, statistics=statistics, model=model)

    originals, copies = read(original), read(drawn)
    before, after = texts(originals), texts(copies)
    found = Effects.of(before, after, side.protect.words).metrics() | variety([*before, *after], side.segmentation)
    for judge in asked.judges:
        found |= judge(originals, copies)
    return {f"text/{name}": value for name, value in found.items()}


def texts(rows: pa.Table) -> list[str]:
    """All texts, then all pairs."""
    columns = (rows[name].to_pylist() for name in ("text", "pair"))
    return [text for text in chain.from_iterable(columns) if text is not None]


def variety(texts: Sequence[str], segmentation: Segmentation = "character") -> dict[str, float]:
    """`distinct_1`, `distinct_2` and `self_bleu` of texts."""
    batch = TextBatch.from_texts(texts, None, segmentation)
    return {"distinct_1": _distinct(batch, 1), "distinct_2": _distinct(batch, 2), "self_bleu": _self_bleu(batch)}


def distinct(texts: Sequence[str], n: int, segmentation: Segmentation = "character") -> float:
    """Different n-grams of words as a share of all of them (Li et al. 2016); 0 where there are none."""
    return _distinct(TextBatch.from_texts(texts, None, segmentation), n)


def _distinct(batch: TextBatch, n: int) -> float:
    grams, _ = _grams(*_words(batch, batch.is_word), n)
    return np.unique(grams).size / grams.size if grams.size else 0.0


def self_bleu(texts: Sequence[str], segmentation: Segmentation = "character") -> float:
    """Mean BLEU of each text with all others as its references (Zhu et al. 2018), in [0, 1]; 0 for fewer than two.

    BLEU of a sentence is sacrebleu's: up to 4-grams, as many as the sentence has (effective order), exponential
    smoothing; over the tokens of our own segmentation. With counts as arrays, the others of all texts are looked at
    together; sacrebleu reads every pair, which takes seconds for 256 texts.
    """
    return _self_bleu(TextBatch.from_texts(texts, None, segmentation))


def _self_bleu(batch: TextBatch) -> float:
    hashes, rows = _words(batch, batch.kinds != END)
    rows = np.unique(rows, return_inverse=True)[1].astype(np.int64)  # a text without tokens is left out
    size = np.bincount(rows)
    if size.size < 2:
        return 0.0
    matched, total = np.zeros((2, ORDER, size.size))
    for n in range(1, ORDER + 1):
        grams, where = _grams(hashes, rows, n)
        total[n - 1] = np.bincount(where, minlength=size.size)
        matched[n - 1] = _matched(grams, where, size.size)
    real = total > 0
    smoothed = np.where(matched > 0, matched, 0.5 ** np.cumsum(real & (matched == 0), axis=0))
    logs = np.log(smoothed / np.maximum(total, 1), out=np.zeros_like(total), where=real)
    brevity = np.minimum(0.0, 1.0 - _closest_other(size) / size)
    bleu = np.exp(logs.sum(axis=0) / real.sum(axis=0) + brevity)
    return float(np.where(matched.any(axis=0), bleu, 0.0).mean())


def fidelity(before: F64, after: F64) -> float:
    """Share of rows to which a model still gives the label it gave, from its probabilities (N, C) before and after.

    It says something of the labels where the model has not learnt these rows, nor from augmented ones (rung 0's).
    """
    return float((before.argmax(axis=1) == after.argmax(axis=1)).mean())


def _words(batch: TextBatch, which: Bools) -> tuple[U64, Ints]:
    """Hashes of these tokens and their rows, end tokens left out."""
    tokens = np.flatnonzero(which & (batch.kinds != END))
    return word_hashes(*batch.words(tokens)), batch.rows_of(tokens)


def _missing(needed: tuple[U64, Ints], there: tuple[U64, Ints]) -> int:
    """How many of `needed` (hashes, rows) are not `there`, each counted as often as it occurs in its row."""
    wanted, counts = np.unique(keys(*needed), return_counts=True)
    found, have = np.unique(keys(*there), return_counts=True)
    at = np.searchsorted(found, wanted)
    known = np.append(found, np.uint64(0))[at] == wanted
    return int(np.maximum(0, counts - np.where(known, np.append(have, 0)[at], 0)).sum())


def _grams(hashes: U64, rows: Ints, n: int) -> tuple[U64, Ints]:
    """Hashes of n tokens in a row, and whose they are."""
    last = rows.size - n + 1
    at = np.flatnonzero(rows[: max(0, last)] == rows[n - 1 :])
    return keys(*(hashes[at + k] for k in range(n))), rows[at]


def _matched(grams: U64, rows: Ints, count: int) -> F64:
    """How many of each row's n-grams another row has, at most as often as the one that has it most, (count,)."""
    if not grams.size:
        return np.zeros(count)
    number = np.unique(grams, return_inverse=True)[1].astype(np.int64)
    cells, times = np.unique(number * count + rows, return_counts=True)
    number, row = np.divmod(cells, count)
    order = np.lexsort((times, number))
    last = np.flatnonzero(np.append(number[1:] != number[:-1], True))  # of each n-gram: who has it most
    best, second = order[last], order[last - 1]
    again = np.where(number[second] == np.arange(last.size), times[second], 0)
    again[last == 0] = 0
    elsewhere = np.where(row == row[best][number], again[number], times[best][number])
    return np.asarray(np.bincount(row, np.minimum(times, elsewhere), count), dtype=np.float64)


def _closest_other(size: Ints) -> Ints:
    """For each length the nearest of the others, the shorter of two as near."""
    order = np.argsort(size, kind="stable")
    sizes = size[order]
    far = np.iinfo(np.int64).max // 2
    below_, above = np.append(-far, sizes[:-1]), np.append(sizes[1:], far)
    nearest = np.empty_like(size)
    nearest[order] = np.where(sizes - below_ <= above - sizes, below_, above)
    return nearest
