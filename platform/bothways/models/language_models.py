"""A checkpoint as a language model: with the head its family has for that, and its vocabulary cut like everything else.

What a checkpoint lacks (a head, a decoder's attention to another text) is drawn from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForPreTraining
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES,
)

from bothways import models, seeding
from bothways.errors import UserError, one_line
from bothways.input_side.preparation import Kind, Loaded
from bothways.models.fast_encoder import quicken
from bothways.models.pruning import prune
from bothways.seeding import F64
from bothways.text import Ints
from bothways.tokenization import Vocabulary, tokenizer
from bothways.training.checkpoints import atomic_directory

_CLASSES: Mapping[Kind, Any] = {
    "encoder": AutoModel,
    "masked_lm": AutoModelForMaskedLM,
    "next_sentence": AutoModelForPreTraining,
    "causal_lm": AutoModelForCausalLM,
    "decoder": AutoModelForCausalLM,
}
_SETTINGS: Mapping[Kind, Mapping[str, Any]] = {"decoder": {"is_decoder": True, "add_cross_attention": True}}


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """`preparation.Source` of a model directory.

    `name`: what the user calls it. `vocabulary`: what is kept of it; None for all. `start`: weights of its body, by
    their names there, in place of the checkpoint's. `counts`: float64 (V,), how often each id occurs in the texts.
    """

    name: str
    path: str
    vocabulary: Vocabulary | None
    device: torch.device
    seed: int
    counts: F64
    start: Mapping[str, Tensor]

    @cached_property
    def _config(self) -> Any:
        return AutoConfig.from_pretrained(self.path, local_files_only=True)

    @cached_property
    def causal(self) -> bool:
        """Raises `UserError` for a family that is neither an encoder nor a decoder."""
        about = self._config
        if about.is_encoder_decoder:
            raise UserError(f"model.prepare is for encoders and for decoders, and {self.name} is both at once")
        if about.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES or self.permuted:
            return False
        if about.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            return True
        raise UserError(f"model.prepare: transformers has no language model of the family {about.model_type}")

    @property
    def permuted(self) -> bool:
        return bool(self._config.model_type == "xlnet")

    @property
    def _tokenizer(self) -> Any:
        return tokenizer(self.path, self.vocabulary)

    @property
    def pad_id(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    @property
    def mask_id(self) -> int | None:
        found: int | None = self._tokenizer.mask_token_id
        return found

    @cached_property
    def special(self) -> Ints:
        """The ids of special tokens."""
        return np.array(sorted(set(self._tokenizer.all_special_ids)), dtype=np.int64)

    @cached_property
    def ordinary(self) -> Ints:
        return np.setdiff1d(np.arange(len(self.counts)), self.special)

    def load(self, kind: Kind) -> Loaded:
        if kind == "decoder" and self._config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise UserError(f"model {self.name}: transformers has no decoder of its family, {self._config.model_type}")
        if kind == "next_sentence" and self._config.model_type not in MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES:
            raise UserError(
                f"continued_pretraining: next_sentence is for models of BERT's kind, and transformers has no head for "
                f"it of the family {self._config.model_type}: set it to false"
            )
        try:
            with models.quiet(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(seeding.integer(self.seed, "language model", kind))
                model, info = _CLASSES[kind].from_pretrained(
                    self.path,
                    dtype=torch.float32,
                    local_files_only=True,
                    output_loading_info=True,
                    **_SETTINGS.get(kind, {}),
                )
        except (OSError, ValueError) as error:
            raise UserError(f"model {self.name} cannot be prepared this way: {one_line(error)}") from error
        if self.vocabulary is not None:
            prune(model, self.vocabulary)
        body = model.base_model
        with torch.no_grad():
            for name, value in body.state_dict().items():
                if name in self.start:
                    value.copy_(self.start[name])
        model.to(self.device)
        quicken(model)
        return Loaded(model, frozenset(info["missing_keys"]))

    def dense(self, width: int) -> nn.Linear:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeding.integer(self.seed, "dense"))
            layer = nn.Linear(width, width)
        return layer.to(self.device)


def save(model: Any, checkpoint: Checkpoint, directory: Path) -> None:
    """Write a language model with its tokenizer as an ordinary transformers directory, atomically."""
    with atomic_directory(directory) as aside, models.quiet():
        model.save_pretrained(aside)
        tokenizer(checkpoint.path, checkpoint.vocabulary).save_pretrained(aside)
        _keep_rest(model, checkpoint, aside / "model.safetensors")


def _keep_rest(model: Any, checkpoint: Checkpoint, file: Path) -> None:
    """Add what the checkpoint's body has and its language model has no use for (BERT's pooler): a task may read it."""
    whole, info = AutoModel.from_pretrained(
        checkpoint.path, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    known = {*model.base_model.state_dict(), *info["missing_keys"]}
    prefix = model.base_model_prefix
    rest = {f"{prefix}.{name}": value for name, value in whole.state_dict().items() if name not in known}
    if rest and file.exists():
        safetensors.torch.save_file({**safetensors.torch.load_file(file), **rest}, file, metadata={"format": "pt"})
