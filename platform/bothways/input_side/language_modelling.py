"""Token prediction: logits where a token is to be predicted and nowhere else, and how good they are.

The vocabulary matrix is most of a small encoder's arithmetic, and masking asks for 15 % of the tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bothways.input_side.preparation import Learner, TokenBatch
from bothways.input_side.transform import chosen
from bothways.lazy import functional, torch
from bothways.seeding import U64, streams
from bothways.text import Bools

if TYPE_CHECKING:
    from torch import Tensor


def logits_at(model: Any, inputs: Mapping[str, Tensor], where: Tensor, **others: Any) -> Tensor:
    """Logits (M, V) of the M tokens at `where`, bool (N, T), row after row: exactly those of the whole forward.

    The body's hidden states are cut to these tokens before the head sees them.
    """
    logits: Tensor = outputs_at(model, inputs, where, **others).logits
    return logits[0]


def outputs_at(model: Any, inputs: Mapping[str, Tensor], where: Tensor, **others: Any) -> Any:
    """All that a model gives, whose tokens are those at `where`, as a batch of one row; see `logits_at`."""

    def select(_module: Any, _arguments: Any, output: Any) -> Any:
        output["last_hidden_state"] = output.last_hidden_state[where][None]
        return output

    handle = model.base_model.register_forward_hook(select)
    try:
        return model(**inputs, **others)
    finally:
        handle.remove()


def head_of(model: Any, hidden: Tensor) -> Tensor:
    """Logits (M, V) that the model's head makes of hidden states (M, H): the body is made to answer these."""
    from transformers.modeling_outputs import BaseModelOutput

    body = model.base_model
    body.forward = lambda *_, **__: BaseModelOutput(last_hidden_state=hidden[None])
    try:
        logits: Tensor = model(input_ids=None).logits
    finally:
        del body.forward
    return logits[0]


def drawn_tokens(batch: TokenBatch, share: float) -> tuple[Bools, U64]:
    """The tokens to predict, bool (N, T), each with probability `share` and at least one of a text; and 64 random bits
    of each token."""
    bits = token_bits(batch)
    return at_least_one(chosen(bits, share) & ~batch.special, batch, bits), bits


def token_bits(batch: TokenBatch) -> U64:
    """64 random bits for each token, (N, T): the j-th of a text's own generator."""
    return streams(batch.keys, np.full(len(batch), batch.ids.shape[1])).reshape(batch.ids.shape)


def at_least_one(drawn: Bools, batch: TokenBatch, bits: U64) -> Bools:
    """`drawn`, and of each text that nothing was drawn of the token with the smallest bits."""
    free = ~batch.special
    none = np.flatnonzero(~drawn.any(axis=1) & free.any(axis=1))
    drawn[none, np.where(free[none], bits[none], np.iinfo(np.uint64).max).argmin(axis=1)] = True
    return drawn


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of (M, V) against (M,); 0 where M is."""
    if not len(targets):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits.float(), targets)


def scores(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Sums over M predictions: `count`, `loss` in nats, `top1` and `top5`: the target is the likeliest, or among the
    five likeliest tokens."""
    with torch.no_grad():
        losses = functional.cross_entropy(logits.float(), targets, reduction="none")
        own = logits.gather(1, targets[:, None])
        before = (logits > own).sum(dim=1)
        return {
            "count": float(len(targets)),
            "loss": float(losses.double().sum()),
            "top1": float((before < 1).sum()),
            "top5": float((before < 5).sum()),
        }


class TokenLearner(Learner):
    """One that predicts tokens and nothing else."""

    @abstractmethod
    def predicted(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Logits (M, V) of the predicted tokens, and what they are, int64 (M,)."""

    def loss(self, batch: TokenBatch) -> Tensor:
        return mean_loss(*self.predicted(batch))

    def measure(self, batch: TokenBatch) -> Mapping[str, float]:
        with torch.no_grad():
            return scores(*self.predicted(batch))
