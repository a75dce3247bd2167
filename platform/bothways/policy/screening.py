"""Rung 0 of a search: input sides judged by forward passes, before any trial is trained.

A control model that has not seen some rows is shown them as an input side would change them. What it still reads
rightly is close to the data (density matching, as in Fast AutoAugment, Lim et al. 2019), but so is a row that was not
changed at all: what helps is change that is both close and various (Gontijo-Lopes et al. 2021). So the rule has two
floors, fidelity and variety, and ranks by log-loss what is above both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from bothways import policy
from bothways.config import Experiment, InputSide
from bothways.policy.effects import distinct, fidelity
from bothways.seeding import F64 as F64

Predict = Callable[[pa.Table], F64]
"""Rows with text and pair → probabilities (N, C), in the order of the label numbers."""

HALVES = 2
"""Control models: each is trained on the rows that the other one judges."""
ROWS = 256
"""Rows a control model judges, at most: a forward pass of them for each candidate."""
FIDELITY = 0.9
"""The least share of rows whose predicted label has to stay: below it, labels cannot be trusted to stay either."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What became of `rows` rows. `loss`: mean log-loss in nats. `fidelity`: share whose predicted label stayed.

    `distinct_1`, `distinct_2`: different words, and pairs of neighbours, as shares of all (Li et al. 2016), over the
    changed rows and their originals together: plain copies have about half of what the originals have alone.
    """

    rows: int
    loss: float
    fidelity: float
    distinct_1: float
    distinct_2: float


def judge(side: InputSide, experiment: Experiment, train: pa.Table, held_out: pa.Table, predict: Predict) -> Score:
    """One changed copy of each held-out row, as a model trained on `train` sees it.

    `train`, `held_out`: columns id, text, pair (null for single texts), label. Statistics are of `train` only.
    """
    held_out = held_out.slice(0, ROWS)
    count, language = held_out.num_rows, experiment.data.language
    views = held_out.append_column("epoch", pa.array(np.zeros(count, np.int32)))
    views = views.append_column("copy", pa.array(np.ones(count, np.int32)))
    label_words, examples = side.protect.label_words > 0, policy.takes_examples(side)
    statistics = policy.statistics(train, language, side.segmentation, label_words=label_words, examples=examples)
    seed, model = experiment.seed, experiment.model.source
    changed = policy.read(views, side=side, language=language, seed=seed, statistics=statistics, model=model)
    before, after = predict(held_out), predict(changed)
    texts = [*held_out["text"].to_pylist(), *changed["text"].to_pylist()]
    right = after[np.arange(count), held_out["label"].to_numpy()]
    return Score(
        rows=count,
        loss=float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean()),
        fidelity=fidelity(before, after),
        distinct_1=distinct(texts, 1, side.segmentation),
        distinct_2=distinct(texts, 2, side.segmentation),
    )


def together(scores: Sequence[Score]) -> Score:
    """The scores of one side by several models, each weighed by its rows."""
    rows = [score.rows for score in scores]
    means = {
        each.name: float(np.average([getattr(score, each.name) for score in scores], weights=rows))
        for each in fields(Score)
        if each.name != "rows"
    }
    return Score(rows=sum(rows), **means)


def chosen(scores: Sequence[Score], count: int) -> list[int]:
    """The positions of the `count` best: among the more various half, and above the floor of fidelity, by log-loss.

    Variety is `distinct_2`. Fewer than `count` where fewer are above both floors.
    """
    if not scores:
        return []
    various = np.median([score.distinct_2 for score in scores])
    able = [i for i, score in enumerate(scores) if score.distinct_2 >= various and score.fidelity >= FIDELITY]
    return sorted(able, key=lambda i: scores[i].loss)[:count]


def input_part(point: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a point that are on the input side."""
    return {path: value for path, value in point.items() if path.startswith("input.")}


def table(points: Sequence[Mapping[str, Any]], scores: Sequence[Score], first: Sequence[int]) -> str:
    """Tab-separated, best log-loss first; `start` says which points the search begins with."""
    names = [each.name for each in fields(Score)]
    lines = ["\t".join(["start", *names, "point"])]
    for i in sorted(range(len(points)), key=lambda i: scores[i].loss):
        values = [f"{getattr(scores[i], name):.4g}" for name in names]
        knobs = " ".join(f"{path}={value}" for path, value in points[i].items())
        lines.append("\t".join(["yes" if i in first else "no", *values, knobs]))
    return "\n".join(lines) + "\n"
