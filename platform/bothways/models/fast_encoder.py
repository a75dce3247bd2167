"""What makes an encoder cheaper without changing what it computes.

The last layer works for the first token alone where the classifier reads no other one, and dropout on a CPU draws
16 bits for an element instead of a float (torch's own took a tenth of a training step). A GPU keeps torch's kernels.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "bothways"
"""The name under which transformers knows `attend`."""
FIRST_TOKEN = ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra")
"""Families whose sequence classifier reads the first token only, and whose layers are built like BERT's."""


def quicken(module: Any) -> None:
    """Change the forward of a transformers model in place; its parameters and their names stay as they are."""
    if module.config._attn_implementation == "sdpa":
        AttentionInterface.register(ATTENTION, attend)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        module.set_attn_implementation(ATTENTION)
    for part in module.modules():
        if type(part) is nn.Dropout:
            part.forward = functools.partial(_dropout, part)  # type: ignore[method-assign]
    if type(module).__name__ in {f"{family}ForSequenceClassification" for family in FIRST_TOKEN}:
        last = module.base_model.encoder.layer[-1]
        last.forward = functools.partial(_first_token, last)


def drop(values: Tensor, rate: float) -> Tensor:
    """Dropout (Srivastava 2014) in training, from torch's global generator; the rate is rounded to 1/65536."""
    if not rate or values.device.type != "cpu":
        return nn.functional.dropout(values, rate)
    dropped = round(rate * 2**16)
    words = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.int16)[: values.numel()].view(values.shape) >= dropped - 2**15
    return values * (keep * (2**16 / (2**16 - dropped)))


def _dropout(module: nn.Dropout, values: Tensor) -> Tensor:
    return drop(values, module.p) if module.training else values


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """`transformers`' attention (N, heads, T, H/heads) → (N, T, heads, H/heads), with `drop`.

    Everything but the training of plain bidirectional attention on a CPU goes to torch's own kernel.
    """
    special = getattr(module, "is_causal", False) or any(value is not None for value in others.values())
    if not dropout or special or query.device.type != "cpu" or query.shape[1] != key.shape[1]:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return attended
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(2, 3)
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + attention_mask
    return (drop(scores.softmax(dim=-1), dropout) @ value).transpose(1, 2).contiguous(), None


def _first_token(layer: Any, hidden: Tensor, attention_mask: Tensor | None, *_: Any, **__: Any) -> Tensor:
    """A BERT layer's output for the first token, (N, 1, H), from all tokens' hidden states (N, T, H)."""
    attention = layer.attention
    inner = attention.self
    heads = (*hidden.shape[:-1], -1, inner.attention_head_size)
    first = hidden[:, :1]
    query = inner.query(first).view(*first.shape[:-1], -1, inner.attention_head_size).transpose(1, 2)
    key, value = (project(hidden).view(heads).transpose(1, 2) for project in (inner.key, inner.value))
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    read = AttentionInterface()[inner.config._attn_implementation]
    rate = inner.dropout.p if inner.training else 0.0
    attended, _weights = read(inner, query, key, value, mask, dropout=rate, scaling=inner.scaling)
    between = attention.output(attended.reshape(first.shape), first)
    changed: Tensor = layer.output(layer.intermediate(between), between)
    return changed
