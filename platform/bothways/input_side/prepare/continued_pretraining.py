"""Continued pretraining (DAPT, TAPT): the model's own language-model loss on the texts of the task and its domain.

Encoders: masked language modelling (Devlin et al. 2019). 15 % of the tokens are drawn, for each text and epoch anew; of
these 80 % are masked, 10 % become another token, 10 % stay, and all are to be predicted: -1/M Σ log P(t_i | x masked).
A text that nothing is drawn of gives the token that came nearest to it. A checkpoint without a language-model head gets
BERT's: dense, GELU, normalisation, and the input embeddings as decoder, whose bias begins at the log frequencies of the
texts' tokens, so that the body is not asked for what counting can tell.
Decoders: -1/M Σ log P(t_i | t_<i).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from bothways.errors import UserError
from bothways.input_side.language_modelling import logits_at, mean_loss, scores
from bothways.input_side.preparation import Learner, Preparation, Source, TokenBatch
from bothways.input_side.transform import again, chosen
from bothways.lazy import torch
from bothways.registry import PREPARATIONS, Range
from bothways.seeding import U64, below, streams
from bothways.text import Bools, Ints

if TYPE_CHECKING:
    from torch import Tensor

MASKED, RANDOM = 0.8, 0.1
"""Of the tokens drawn: the share that is masked, and the share that becomes another token."""


@PREPARATIONS.register("continued_pretraining")
class ContinuedPretraining(Preparation):
    """`steps` of `batch_size` texts; 0 leaves the model alone. `lr`: peak rate; `head_lr`: of a new language-model head
    (null: `lr`). `mask`: share of the tokens to predict (encoders)."""

    term: ClassVar[str] = "continued pretraining (DAPT, TAPT)"
    source: ClassVar[str] = "Gururangan et al. 2020; Devlin et al. 2019"

    mask: Annotated[float, Field(gt=0.0, lt=1.0), Range(0.1, 0.4)] = 0.15

    def learner(self, source: Source) -> Learner:
        return NextTokens(source) if source.causal else MaskedTokens(source, self.mask)


class MaskedTokens(Learner):
    """A masked language model at work."""

    def __init__(self, source: Source, share: float) -> None:
        if source.mask_id is None:
            raise UserError(f"continued_pretraining: the tokenizer of {source.name} has no mask token")
        self._mask_id = source.mask_id
        loaded = source.load("masked_lm")
        self.module = loaded.model
        self.body = loaded.model.base_model
        self.new = loaded.new
        self._source = source
        self._share = share
        decoder = loaded.model.get_output_embeddings()
        biases = {id(value) for name, value in loaded.model.named_parameters() if name in loaded.new}
        if decoder is not None and id(decoder.bias) in biases:
            counts = np.ones(len(decoder.bias))
            counts[: len(source.counts)] += source.counts
            with torch.no_grad():
                decoder.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))

    def loss(self, batch: TokenBatch) -> Tensor:
        drawn, bits = drawn_tokens(batch, self._share)
        ids = corrupted(batch.ids, drawn, bits, self._mask_id, self._source.ordinary)
        return mean_loss(*self._predicted(batch, ids, drawn))

    def measure(self, batch: TokenBatch) -> Mapping[str, float]:
        """Here every drawn token is masked: what the model is used for."""
        drawn, _ = drawn_tokens(batch, self._share)
        with torch.no_grad():
            return scores(*self._predicted(batch, np.where(drawn, self._mask_id, batch.ids), drawn))

    def _predicted(self, batch: TokenBatch, ids: Ints, drawn: Bools) -> tuple[Tensor, Tensor]:
        """Logits (M, V) of the drawn tokens, and what they were, (M,)."""
        device = self._source.device
        logits = logits_at(self.module, batch.with_ids(ids).inputs(device), torch.from_numpy(drawn).to(device))
        return logits, torch.from_numpy(batch.ids[drawn]).to(device)


def drawn_tokens(batch: TokenBatch, share: float) -> tuple[Bools, U64]:
    """The tokens to predict, bool (N, T), each with probability `share` and at least one of a text; and 64 random bits
    of each token."""
    bits = streams(batch.keys, np.full(len(batch), batch.ids.shape[1])).reshape(batch.ids.shape)
    free = ~batch.special
    drawn = chosen(bits, share) & free
    none = np.flatnonzero(~drawn.any(axis=1) & free.any(axis=1))
    drawn[none, np.where(free[none], bits[none], np.iinfo(np.uint64).max).argmin(axis=1)] = True
    return drawn, bits


def corrupted(ids: Ints, drawn: Bools, bits: U64, mask_id: int, ordinary: Ints) -> Ints:
    """What the model reads in place of the drawn tokens."""
    at = bits[drawn]
    how = again(at, "how")
    result = ids.copy()
    other = ordinary[below(again(at, "token"), ordinary.size)]
    result[drawn] = np.where(chosen(how, MASKED), mask_id, np.where(chosen(how, MASKED + RANDOM), other, ids[drawn]))
    return result


class NextTokens(Learner):
    """A causal language model at work."""

    def __init__(self, source: Source) -> None:
        loaded = source.load("causal_lm")
        self.module = loaded.model
        self.body = loaded.model.base_model
        self.new = loaded.new
        self._device = source.device

    def loss(self, batch: TokenBatch) -> Tensor:
        return mean_loss(*self._predicted(batch))

    def measure(self, batch: TokenBatch) -> Mapping[str, float]:
        with torch.no_grad():
            return scores(*self._predicted(batch))

    def _predicted(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        followed = np.zeros_like(batch.real)
        followed[:, :-1] = batch.real[:, 1:]
        where = torch.from_numpy(followed).to(self._device)
        logits = logits_at(self.module, batch.inputs(self._device), where, use_cache=False)
        return logits, torch.from_numpy(np.roll(batch.ids, -1, axis=1)[followed]).to(self._device)
