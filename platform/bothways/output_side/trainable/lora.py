"""Low-rank adaptation: the body is frozen, and beside some of its matrices a product of two thin ones learns.

h = W x + (alpha / r) B A dropout(x), A (r, in) at random, B (out, r) zero at the start, so that training begins at the
pretrained model (Hu et al. 2021). When training ends, (alpha / r) B A is added to W: the model is a plain one again.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bothways.contracts import Move
from bothways.errors import UserError
from bothways.lazy import torch
from bothways.output_side.trainable import Moves, Trainable, head_parameters, layers, names_of
from bothways.registry import TRAINABLES, Choices, Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


ATTENTION = frozenset(
    {
        *("query", "value"),  # BERT, RoBERTa, ELECTRA, ALBERT
        *("q_lin", "v_lin"),  # DistilBERT, XLM
        *("query_proj", "value_proj"),  # DeBERTa
        *("q", "v"),  # T5, MT5, XLNet
        *("q_proj", "v_proj"),  # BART, Llama, Qwen
        *("c_attn", "query_key_value", "Wqkv"),  # GPT-2; GPT-NeoX, BLOOM; ModernBERT
    }
)
"""How model families name the matrices of query and value."""


@TRAINABLES.register("lora")
class Lora(Trainable):
    """`r`: rank. `alpha`: scale of what is learnt, over `r`. `dropout`: of what the thin matrices read.

    `targets`: `attention` is query and value of every layer (where a family has them in one matrix with the key, that
    matrix); `linear` is every matrix of the layers. The head is trained as well.
    """

    term = "low-rank adaptation"
    source = "LoRA, Hu et al. 2021"

    r: Annotated[int, Field(ge=1), Choices(4, 8, 16)] = 8
    alpha: Annotated[float, Field(gt=0.0), Range(4, 64, log=True)] = 16.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.2)] = 0.0
    targets: Annotated[Literal["attention", "linear"], Choices("attention", "linear")] = "attention"

    def moves(self, model: nn.Module) -> Moves:
        adapters = [name for name, _ in model.named_parameters() if ".lora_" in name]
        return {name: Move() for name in (*adapters, *names_of(model, head_parameters(model)))}

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Moves]:
        """Raises `UserError` when the family's attention is not known."""
        from peft.tuners.lora import LoraConfig, LoraModel

        found = self._targets(model)
        fan_in_fan_out = type(model.get_submodule(found[0])).__name__ == "Conv1D"  # GPT-2 stores its matrices turned
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type, unused-ignore]
            lora_dropout=self.dropout,
            target_modules=found,
            fan_in_fan_out=fan_in_fan_out,
        )
        adapted = LoraModel(model, config, "default")
        try:
            with super().__call__(model) as moves:
                yield moves
        finally:
            adapted.merge_and_unload()

    def _targets(self, model: nn.Module) -> list[str]:
        """The names of the modules whose matrices get an adapter."""
        from transformers.pytorch_utils import Conv1D

        inside = {id(part) for layer in layers(model) for part in layer.modules()}
        matrices = [
            name
            for name, part in model.named_modules()
            if isinstance(part, torch.nn.Linear | Conv1D) and id(part) in inside
        ]
        if self.targets == "linear":
            return matrices
        wanted = [name for name in matrices if name.rpartition(".")[2] in ATTENTION]
        if not wanted:
            raise UserError(f"lora: the attention of {type(model).__name__} is not known; use `targets: linear`")
        return wanted
