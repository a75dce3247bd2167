"""Permutation language modelling (XLNet, Yang et al. 2019): tokens are predicted one after another in a drawn order.

-1/M Σ log P(t_z(i) | t_z(<i)), where z is a permutation of the text's tokens. Only its end is predicted, about `share`
of the tokens (the paper's 1/K): spans of 1 to 5 tokens, each drawn within a stretch of span / share tokens. All others
come first: they see one another, and none of the predicted tokens; a predicted token sees those, its own place, and
what is predicted before it. Two streams of attention make that one forward.

The ids stay what they are, as in the authors' code: what may not be seen is hidden by attention, and the predicting
stream has a learnt vector in place of the token. (The collator of transformers puts mask tokens in their place, so that
what is predicted later never sees what was predicted before.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bothways.input_side.language_modelling import TokenLearner, at_least_one, token_bits
from bothways.input_side.preparation import Source, TokenBatch
from bothways.input_side.transform import again
from bothways.lazy import torch
from bothways.seeding import F64, below
from bothways.text import Bools, Ints

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 5
"""Tokens of a span that is predicted."""


class PermutedTokens(TokenLearner):
    """XLNet at work."""

    def __init__(self, source: Source, share: float) -> None:
        loaded = source.load("causal_lm")
        self.module = loaded.model
        self.body = loaded.model.base_model
        self.new = loaded.new
        self._device = source.device
        self._share = share

    def predicted(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Logits (M, V) of the predicted tokens, and what they are, (M,)."""
        arrays = factorised(batch, self._share)
        targets = arrays.pop("labels")
        inputs = {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}
        real = torch.from_numpy(targets >= 0).to(self._device)
        logits = self.module(**batch.inputs(self._device), **inputs, use_mems=False).logits
        return logits[real], torch.from_numpy(targets[targets >= 0]).to(self._device)


def factorised(batch: TokenBatch, share: float) -> dict[str, Ints | F64]:
    """`perm_mask` (N, T, T): 1 where a token does not see another. `target_mapping` (N, P, T): one predicted token in
    each of P rows, none in those that fill up. `labels` (N, P): what they are, -100 where there is none."""
    drawn, order = spans_drawn(batch, share)
    hidden = drawn[:, None, :] & (order[:, :, None] <= order[:, None, :])
    counts = drawn.sum(axis=1)
    row, token = np.nonzero(drawn)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    mapping = np.zeros((len(batch), int(counts.max(initial=1)), batch.ids.shape[1]), np.float32)
    mapping[row, place, token] = 1.0
    labels = np.full(mapping.shape[:2], -100, np.int64)
    labels[row, place] = batch.ids[row, token]
    return {"perm_mask": hidden.astype(np.float32), "target_mapping": mapping, "labels": labels}


def spans_drawn(batch: TokenBatch, share: float) -> tuple[Bools, Ints]:
    """The tokens to predict, bool (N, T), at least one of a text; and when each is, int64 (N, T): 0 for what is not."""
    bits = token_bits(batch)
    count, width = bits.shape
    drawn = np.zeros((count, width), dtype=bool)
    places = np.arange(width)
    begin = np.zeros(count, dtype=np.int64)
    for span in range(width):
        if (begin >= width).all():
            break
        length = 1 + below(again(bits[:, span], "length"), LONGEST)
        stretch = (length / share).astype(np.int64)
        first = begin + below(again(bits[:, span], "place"), stretch - length + 1)
        drawn |= (places >= first[:, None]) & (places < (first + length)[:, None])
        begin += stretch
    drawn = at_least_one(drawn & ~batch.special, batch, bits)
    later = np.where(drawn, again(bits, "order"), np.uint64(0))
    return drawn, np.where(drawn, 1 + later.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable"), 0)
