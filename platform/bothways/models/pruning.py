"""A model as far as a vocabulary goes: rows of its embeddings, and of the layer that says the next token."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

from bothways.tokenization import Vocabulary


def prune(model: Any, vocabulary: Vocabulary) -> None:
    """Keep what `vocabulary` names of a model's tokens, under their new ids, in place: of its input embedding, of those
    of an encoder and a decoder that have their own, and of a language model's head. What is one tensor stays one."""
    rows = torch.from_numpy(vocabulary.ids.astype("int64"))
    halves = [getattr(model, name, None) for name in ("encoder", "decoder")]
    readers = [model, *(half for half in halves if isinstance(half, transformers.PreTrainedModel))]
    cut = [reader.get_input_embeddings().weight for reader in readers]
    head = model.get_output_embeddings()
    if head is not None:
        cut += [value for value in (head.weight, head.bias) if value is not None]
        head.out_features = len(rows)
    instead = {id(value): nn.Parameter(value.detach()[rows]) for value in cut}
    kept = set(vocabulary.ids.tolist())
    for part in model.modules():
        for name, value in part.named_parameters(recurse=False):
            if id(value) in instead:
                setattr(part, name, instead[id(value)])
                if isinstance(part, nn.Embedding):
                    padding = part.padding_idx
                    part.num_embeddings = len(rows)
                    part.padding_idx = vocabulary.new(padding) if padding is not None and padding in kept else None
        if "final_logits_bias" in part._buffers:  # BART and its kin
            part.final_logits_bias = part.final_logits_bias[:, rows]
    parts = [part for part in model.modules() if hasattr(part, "config")]
    settings = [getattr(part, name, None) for part in parts for name in ("config", "generation_config")]
    for one in {id(one): one for one in (model.config, *settings) if one is not None}.values():
        _renumber(one, vocabulary, kept)


def _renumber(settings: Any, vocabulary: Vocabulary, kept: set[int]) -> None:
    for key, old in settings.to_dict().items():
        if key.endswith("_token_id") and isinstance(old, int):
            setattr(settings, key, vocabulary.new(old) if old in kept else None)
    if getattr(settings, "vocab_size", None) is not None:
        settings.vocab_size = len(kept)
