"""What an arm is worth in labelled examples: where the learning curve of plain training reaches it.

The curve runs through the plain arm's means at several numbers of training rows, straight in the logarithm of the
number. Where more rows seem to do worse, neighbours are pooled (isotonic regression), so that the curve never falls.
All of that is linear in the rows' scores: the curve has scores of its own at any number of rows, and they can be paired
with the arm's by seed and by row. The interval is the numbers of rows at which that difference cannot be told from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from bothways import analysis
from bothways.analysis import Hits
from bothways.results import Estimate

FACTORS = (1.5, 2.0, 4.0)
"""How many times the training rows the further points of a curve have."""
LEAST = 1.25
"""A point with fewer than so many times the training rows says nothing that the first one does not."""
GRID = 120
"""Numbers of rows at which an arm is held against the curve, evenly spaced in the logarithm."""

Reading = Literal["read", "below", "above", "flat", "wide"]


@dataclass(frozen=True, kw_only=True)
class Worth:
    """How many more labelled examples than `base` plain training needs, to be as good as an arm; the curve ends at
    `end` of them in all.

    `reading`: `read`; or why there is no number: the arm is `below` the curve's first point or `above` its last one,
    the curve is `flat` (its end is not better than its beginning beyond chance), or the interval is as `wide` as it.
    `more` is None unless it is read. `low`, `high`: None where the interval goes on beyond the curve's ends.
    """

    reading: Reading
    base: int
    end: int
    more: float | None = None
    low: float | None = None
    high: float | None = None


def sizes(base: int, available: int) -> list[int]:
    """The numbers of training rows of a curve's further points, where there are `available` rows in all."""
    return sorted({n for factor in FACTORS if (n := min(round(factor * base), available)) >= LEAST * base})


@dataclass(frozen=True)
class LearningCurve:
    """`rows`: of every point, ascending, (P,). `hits`: of the plain arm there, pooled, (P, S, N)."""

    rows: npt.NDArray[np.float64]
    hits: Hits

    @classmethod
    def of(cls, points: Mapping[int, Hits]) -> LearningCurve:
        """Through the scores (S, N) of plain training with so many rows. At least two points."""
        rows = sorted(points)
        hits = np.stack([np.asarray(points[n], dtype=np.float64) for n in rows])
        blocks = isotonic_regression(hits.mean(axis=(1, 2))).blocks
        pooled = [hits[start:stop].mean(axis=0) for start, stop in pairwise(blocks)]
        return cls(np.array(rows, dtype=np.float64), np.stack(pooled).repeat(np.diff(blocks), axis=0))

    @property
    def rise(self) -> Estimate:
        """From the first point to the last one."""
        return analysis.difference(self.hits[-1], self.hits[0])

    def at(self, rows: float) -> Hits:
        """The scores with so many rows, (S, N)."""
        k = int(np.clip(np.searchsorted(self.rows, rows), 1, len(self.rows) - 1))
        low, high = np.log(self.rows[k - 1 : k + 1])
        share = (np.log(rows) - low) / (high - low)
        return np.asarray((1 - share) * self.hits[k - 1] + share * self.hits[k])

    def reaches(self, mean: float) -> float:
        """The fewest rows with which the curve is at `mean`, which it is somewhere."""
        means = self.hits.mean(axis=(1, 2))
        k = int(np.searchsorted(means, mean))
        if k == 0:
            return float(self.rows[0])
        share = (mean - means[k - 1]) / (means[k] - means[k - 1])
        low, high = np.log(self.rows[k - 1 : k + 1])
        return float(np.exp(low + share * (high - low)))

    def worth(self, hits: Hits) -> Worth:
        """What an arm with these scores, (S, N), is worth."""
        base, end = int(self.rows[0]), int(self.rows[-1])
        if self.rise.low <= 0:
            return Worth(reading="flat", base=base, end=end)
        mean, means = float(np.mean(hits)), self.hits.mean(axis=(1, 2))
        reading: Reading = "below" if mean < means[0] else "above" if mean > means[-1] else "read"
        found = self.reaches(mean) if reading == "read" else None
        grid = np.geomspace(base, end, GRID)
        grid = np.sort(np.append(grid, found)) if found is not None else grid
        gaps = [analysis.difference(hits, self.at(n)) for n in grid]
        alike = np.flatnonzero([gap.low <= 0 <= gap.high for gap in gaps])
        low = high = None
        if alike.size:
            low = None if alike[0] == 0 else float(grid[alike[0]]) - base
            high = None if alike[-1] == len(grid) - 1 else float(grid[alike[-1]]) - base
            if low is None and high is None:
                return Worth(reading="wide", base=base, end=end)
        elif reading == "above":
            low = float(end - base)
        more = None if found is None else found - base
        return Worth(reading=reading, base=base, end=end, more=more, low=low, high=high)


def sentence(arm: str, worth: Worth) -> str:
    """What can honestly be said of it."""
    base, end = f"{worth.base:,}", f"{worth.end:,}"
    if worth.reading == "flat":
        return f"`{arm}`: not readable, for {end} rows do no better than {base} beyond chance: the curve is flat."
    if worth.reading == "wide":
        return f"`{arm}`: not readable, for its interval holds the whole curve from {base} to {end} rows."
    if worth.reading == "below":
        most = "" if worth.high is None else f" At most {_about(worth.high)}, by its 95 % interval."
        return f"`{arm}`: worth no more labelled examples, it does worse than {base} plain rows.{most}"
    if worth.reading == "above":
        least = "" if worth.low is None else f", at least {_about(worth.low)} by its 95 % interval"
        return f"`{arm}`: not readable beyond the curve, it does better than {end} plain rows{least}."
    assert worth.more is not None
    low = "0, so perhaps nothing," if worth.low is None else _about(worth.low)
    high = f"more than the curve shows ({worth.end - worth.base:,})" if worth.high is None else _about(worth.high)
    examples = "example" if _about(worth.more) == "1" else "examples"
    return f"`{arm}`: worth about {_about(worth.more)} more labelled {examples}, 95 % interval {low} to {high}."


def _about(rows: float) -> str:
    """To two digits: no interval supports more."""
    return f"{round(float(f'{rows:.2g}')):,}"
