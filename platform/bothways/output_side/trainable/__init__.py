"""Which parameters move, and how: one file a method. What they share, generic over model families, is below."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from bothways.contracts import Move
from bothways.errors import UserError
from bothways.lazy import torch
from bothways.registry import Component

if TYPE_CHECKING:
    from torch import nn

Moves = Mapping[str, Move]
"""The parameters that move, by name."""


class Trainable(Component):
    """`contracts.TrainableLike` of a method that says which parameters move, and puts nothing into the model."""

    @abstractmethod
    def moves(self, model: nn.Module) -> Moves:
        """How each parameter moves; those left out are frozen."""

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Moves]:
        """Raises `UserError` when nothing would move."""
        moves = self.moves(model)
        if not moves:
            raise UserError(f"trainable {self.name}: {type(model).__name__} has no such parameters; use full")
        for name, value in model.named_parameters():
            value.requires_grad_(name in moves)
        yield moves


def body(model: nn.Module) -> Any:
    """The pretrained body of a transformers model with a head (`model.bert`, …); the model itself if it is all body."""
    return cast("Any", model).base_model


def layers(model: nn.Module) -> nn.ModuleList:
    """The body's layers, from input to output; those of an encoder before those of its decoder.

    They are the longest module list of the encoder, decoder, or body. Raises `UserError` when there is none.
    """
    whole = body(model)
    halves = [getattr(whole, half) for half in ("encoder", "decoder") if hasattr(whole, half)] or [whole]
    lists = [[part for part in half.modules() if isinstance(part, torch.nn.ModuleList)] for half in halves]
    found = [layer for half in lists if half for layer in max(half, key=len)]
    if not found:
        raise UserError(f"{type(model).__name__} has no list of layers: use trainable full or head")
    return torch.nn.ModuleList(found)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters between body and output: all outside the body, the body's pooler, and an output embedding that is
    not the input's.

    The pooler is BERT's dense layer between encoder and classifier; RoBERTa and DistilBERT keep that layer outside the
    body. With it, `the head` is the same two layers for every encoder. A language model whose output embedding is its
    input embedding has no head. Of an encoder that became both halves of an encoder-decoder it is what pretraining did
    not have: the decoder's head and its attention to the encoder.
    """
    if cast("Any", model).config.model_type == "encoder-decoder":
        decoder = cast("Any", model).decoder
        new = {id(value) for value in head_parameters(decoder)}
        new |= {id(value) for name, value in decoder.named_parameters() if "crossattention" in name}
        return [value for value in model.parameters() if id(value) in new]
    whole = body(model)
    inside = {id(value) for value in whole.parameters()}
    for part in (getattr(whole, "pooler", None), cast("Any", model).get_output_embeddings()):
        inside -= {id(value) for value in part.parameters()} if part is not None else set()
    inside |= {id(value) for value in cast("Any", model).get_input_embeddings().parameters()}
    return [value for value in model.parameters() if id(value) not in inside]


def stack(model: nn.Module) -> list[list[str]]:
    """The names of all parameters from output to input: the head, the layers, the last one first, the embeddings.

    What stands behind a layer and in none of them (a final normalisation) belongs to that layer; what stands before the
    first one, or is of the embeddings by its name, to the embeddings. A head that the model does not have is left out.
    """
    found = layers(model)
    bottom = len(found)
    level: dict[int, int] = {}
    for number, layer in enumerate(found, start=1):
        level |= {id(value): bottom - number for value in layer.parameters()}
    level |= {id(value): -1 for value in head_parameters(model)}
    levels: list[list[str]] = [[] for _ in range(bottom + 2)]
    behind = bottom
    for name, value in model.named_parameters():
        own = level.get(id(value), bottom if "embed" in name else behind)
        behind = own if 0 <= own < bottom else behind
        levels[own + 1].append(name)
    return [names for names in levels if names]


def by_depth(model: nn.Module, move: Callable[[int], Move]) -> Moves:
    """Every parameter, as `move` says of its depth: 0 for the head, 1 for the last layer, and so on down."""
    return {name: move(depth) for depth, names in enumerate(stack(model)) for name in names}


def names_of(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    """The parameters' names in the model, in its order."""
    wanted = {id(value) for value in parameters}
    return [name for name, value in model.named_parameters() if id(value) in wanted]
