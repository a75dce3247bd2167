"""What every preparation is: training of a model's body on the data's own texts, without labels, before fine-tuning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field

from bothways.lazy import torch
from bothways.registry import Component, Range
from bothways.seeding import F64, U64
from bothways.text import Bools, Ints

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = Literal["encoder", "masked_lm", "next_sentence", "causal_lm", "decoder"]
"""How a model is loaded: its body alone, with a head for masked tokens (and one for next sentences) or for next tokens,
or as a decoder that also attends to what another model has made of a text."""
NO_CLAIM = -100
"""Of a row that is no pair of sentences: nothing is said about what follows what."""


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """N texts as ids, padded to T.

    `ids`: int64 (N, T). `real`: bool (N, T), no padding. `special`: bool (N, T), tokens that are no text, padding
    included. `keys`: uint64 (N,), the randomness of each text in this epoch. `rows`: int64 (N,), which text it is.
    Of pairs of sentences also `types`: int64 (N, T), 1 for tokens of the second, and `unrelated`: int64 (N,), 0 where
    the second follows the first, 1 where it was drawn from another text, `NO_CLAIM` where there is no second.
    """

    ids: Ints
    real: Bools
    special: Bools
    keys: U64
    rows: Ints
    types: Ints | None = None
    unrelated: Ints | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def with_ids(self, ids: Ints, real: Bools | None = None) -> TokenBatch:
        """The same texts with other ids."""
        return replace(self, ids=ids, real=self.real if real is None else real)

    def inputs(self, device: Any) -> dict[str, Tensor]:
        """What a model's forward takes."""
        arrays = {"input_ids": self.ids, "attention_mask": self.real.astype(np.int64)}
        if self.types is not None:
            arrays["token_type_ids"] = self.types
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


@dataclass(frozen=True)
class Loaded:
    """A transformers model, and the names of its parameters that its checkpoint did not have."""

    model: Any
    new: frozenset[str]


class Source(Protocol):
    """The model that is prepared, as a member may ask for it.

    `causal`: it reads from left to right. `permuted`: it learns tokens in any order. `mask_id`: None where its
    tokenizer has no mask token. `ordinary`: the ids that are no special tokens. `counts`: float64 (V,), how often each
    id occurs in the texts.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> Any: ...

    @property
    def causal(self) -> bool: ...

    @property
    def permuted(self) -> bool: ...

    @property
    def pad_id(self) -> int: ...

    @property
    def mask_id(self) -> int | None: ...

    @property
    def ordinary(self) -> Ints: ...

    @property
    def counts(self) -> F64: ...

    def load(self, kind: Kind) -> Loaded:
        """The model, its body as prepared so far. What the checkpoint lacks is drawn from the seed.

        Raises `UserError` when its family has none of this kind.
        """
        ...

    def dense(self, width: int) -> nn.Linear:
        """A new layer from `width` to `width`, drawn from the seed."""
        ...


class Learner(ABC):
    """A model at work on a preparation.

    `module`: all that moves. `body`: the part of it whose weights are the outcome. `new`: the names of those parameters
    of `module` that the checkpoint did not have.
    """

    module: nn.Module
    body: nn.Module
    new: frozenset[str]

    @abstractmethod
    def loss(self, batch: TokenBatch) -> Tensor:
        """The batch's mean loss, to be minimised."""

    @abstractmethod
    def measure(self, batch: TokenBatch) -> Mapping[str, float]:
        """Sums over a held-out batch: of `count` tokens, their `loss`, and how many were the likeliest (`top1`) or
        among the five likeliest (`top5`). Where pairs of sentences are told apart, also of `pairs`, their `pair_loss`
        and how many were `told`."""


class Preparation(Component):
    """Training of the body on the data's own texts, those of selection and test rows left out, before fine-tuning.

    Every text is read by itself, also those of pairs, and as it stands in the data. The rate warms up over the first
    twentieth of the steps and falls to 0. What it leaves depends on the source, the texts, the knobs, the seed and the
    place in the list, and is kept on disk. `neutral`: no steps, and the model stays as it is, to the last bit.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"steps": 0}

    steps: Annotated[int, Field(ge=0), Range(0, 1000)] = 200
    batch_size: Annotated[int, Field(ge=2)] = 32
    lr: Annotated[float, Field(gt=0.0, le=1.0), Range(1e-5, 3e-4, log=True)] = 1e-4
    head_lr: Annotated[float, Field(gt=0.0, le=1.0)] | None = 1e-3

    @property
    def pairs(self) -> bool:
        """Whether it reads pairs of sentences, as far as texts have several."""
        return False

    @abstractmethod
    def learner(self, source: Source) -> Learner:
        """Raises `UserError` when the source cannot learn this way."""
