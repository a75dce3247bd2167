"""Which words are a corpus' own, against another: log-odds ratios with an informative Dirichlet prior.

Monroe, Colaresi & Quinn 2008, "Fightin' Words", eqs. 15-16 and 22: with y_w of n words in a corpus and α_w of α_0 in
the prior, δ_w is the difference of log (y_w + α_w) / (n + α_0 - y_w - α_w) between the corpora, and
z_w = δ_w / sqrt(1 / (y_w + α_w) + 1 / (y'_w + α_w)). The prior is both corpora together, scaled down to α_0 words.
"""

from __future__ import annotations

import numpy as np

from bothways.seeding import F64
from bothways.text import Ints


def log_odds(source: Ints, target: Ints, prior: float = 0.01) -> F64:
    """z of each of V words from its counts in two corpora, (V,). `prior`: α_0 as a share of all their words."""
    alpha = prior * (source + target)
    here, there = source + alpha, target + alpha
    odds = [np.log(count / np.maximum(count.sum() - count, 1e-12)) for count in (here, there)]
    return np.asarray((odds[0] - odds[1]) / np.sqrt(1.0 / here + 1.0 / there))
