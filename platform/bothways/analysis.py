"""Did it help? Means with intervals over seeds and test rows, and one honest sentence. Pure functions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bothways.results import Estimate

Hits = npt.NDArray[np.float64]


def estimate(values: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean of `values` (S seeds, N rows) with an interval that holds for fresh seeds AND fresh rows.

    Seeds and rows are crossed random effects, so the variance of the mean is s²(seed means)/S + s²(row means)/N, with
    Satterthwaite's degrees of freedom for Student's t. Both terms hold a share of the residual: the interval errs on
    the wide side. With one seed only the rows' part can be known.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    seeds, rows = table.shape
    parts = [(np.var(table.mean(axis=axis), ddof=1) / n, n - 1) for axis, n in ((1, seeds), (0, rows)) if n > 1]
    variance = sum(v for v, _ in parts)
    mean = float(table.mean())
    if variance == 0:
        return Estimate(mean=mean, low=mean, high=mean)
    freedom = variance**2 / sum(v**2 / df for v, df in parts)
    half = float(stdtrit(freedom, 0.5 + confidence / 2) * np.sqrt(variance))
    return Estimate(mean=mean, low=mean - half, high=mean + half)


def difference(treated: Hits, control: Hits, confidence: float = 0.95) -> Estimate:
    """Mean of treated - control, paired by seed and by row; both (S, N)."""
    return estimate(np.asarray(treated, dtype=np.float64) - np.asarray(control, dtype=np.float64), confidence)


def verdict(gain: Estimate | None, seeds: int, score: str = "accuracy") -> str:
    """One honest sentence on a gain in the rows' `score`; None is a search whose winner was the control itself."""
    if gain is None:
        return "Nothing the search tried did better than the control on the selection rows."
    points = f"{100 * gain.mean:+.1f} points of {score}, 95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    if seeds == 1:
        return f"One seed says nothing about the next: {points} over the rows alone."
    if gain.low > 0:
        return f"It helped: {points}."
    if gain.high < 0:
        return f"It hurt: {points}."
    return f"No gain that can be told from chance: {points}."
