"""Token prediction: logits where a token is to be predicted and nowhere else, and how good they are.

The vocabulary matrix is most of a small encoder's arithmetic, and masking asks for 15 % of the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bothways.lazy import functional, torch

if TYPE_CHECKING:
    from torch import Tensor


def logits_at(model: Any, inputs: Mapping[str, Tensor], where: Tensor, **others: Any) -> Tensor:
    """Logits (M, V) of the M tokens at `where`, bool (N, T), row after row: exactly those of the whole forward.

    The body's hidden states are cut to these tokens before the head sees them.
    """

    def select(_module: Any, _arguments: Any, output: Any) -> Any:
        output["last_hidden_state"] = output.last_hidden_state[where][None]
        return output

    handle = model.base_model.register_forward_hook(select)
    try:
        logits: Tensor = model(**inputs, **others).logits
    finally:
        handle.remove()
    return logits[0]


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
