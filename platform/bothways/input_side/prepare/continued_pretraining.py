"""Continued pretraining (DAPT, TAPT): the model's own language-model loss on the texts of the task and its domain.

Encoders: masked language modelling (Devlin et al. 2019). 15 % of the tokens are drawn, for each text and epoch anew; of
these 80 % are masked, 10 % become another token, 10 % stay, and all are to be predicted: -1/M Σ log P(t_i | x masked).
A text that nothing is drawn of gives the token that came nearest to it. A checkpoint without a language-model head gets
BERT's: dense, GELU, normalisation, and the input embeddings as decoder, whose bias begins at the log frequencies of the
texts' tokens, so that the body is not asked for what counting can tell.
With next-sentence prediction (Devlin et al. 2019) a row is two sentences of the corpus, [CLS] A [SEP] B [SEP]. In half
of the rows B is what follows A, in the others a sentence of another text, for each row and epoch anew; the loss gains
-1/R Σ log P(which | h_CLS). A text of one sentence is read by itself and says nothing of that.
Decoders: -1/M Σ log P(t_i | t_<i). XLNet: permutation language modelling, see `input_side.permutation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from bothways.errors import UserError
from bothways.input_side.language_modelling import TokenLearner, drawn_tokens, logits_at, mean_loss, outputs_at, scores
from bothways.input_side.permutation import PermutedTokens
from bothways.input_side.preparation import NO_CLAIM, Kind, Learner, Preparation, Source, TokenBatch
from bothways.input_side.transform import again, chosen
from bothways.lazy import torch
from bothways.registry import PREPARATIONS, Range
from bothways.seeding import U64, below
from bothways.text import Bools, Ints

if TYPE_CHECKING:
    from torch import Tensor

MASKED, RANDOM = 0.8, 0.1
"""Of the tokens drawn: the share that is masked, and the share that becomes another token."""


@PREPARATIONS.register("continued_pretraining")
class ContinuedPretraining(Preparation):
    """`steps` of `batch_size` texts; 0 leaves the model alone. `lr`: peak rate; `head_lr`: of a new language-model head
    (null: `lr`). `mask`: share of the tokens to predict (encoders, XLNet). `next_sentence`: BERT's second task, too, on
    pairs of sentences (models of BERT's kind)."""

    term: ClassVar[str] = "continued pretraining (DAPT, TAPT)"
    source: ClassVar[str] = "Gururangan et al. 2020; Devlin et al. 2019; XLNet: Yang et al. 2019"

    mask: Annotated[float, Field(gt=0.0, lt=1.0), Range(0.1, 0.4)] = 0.15
    next_sentence: bool = False

    @property
    def pairs(self) -> bool:
        return self.next_sentence

    def spec(self) -> dict[str, Any]:
        """Without `next_sentence` where it is off: experiments from before there was such a knob keep their names."""
        found = super().spec()
        return found if self.next_sentence else {k: v for k, v in found.items() if k != "next_sentence"}

    def learner(self, source: Source) -> Learner:
        if self.next_sentence:
            return MaskedTokensAndSentences(source, self.mask)
        if source.permuted:
            return PermutedTokens(source, self.mask)
        return NextTokens(source) if source.causal else MaskedTokens(source, self.mask)


class MaskedTokens(Learner):
    """A masked language model at work."""

    kind: ClassVar[Kind] = "masked_lm"

    def __init__(self, source: Source, share: float) -> None:
        loaded = source.load(self.kind)
        if source.mask_id is None:
            raise UserError(f"continued_pretraining: the tokenizer of {source.name} has no mask token")
        self._mask_id = source.mask_id
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


class MaskedTokensAndSentences(MaskedTokens):
    """The same, and whether the second sentence of a row follows the first."""

    kind = "next_sentence"

    def loss(self, batch: TokenBatch) -> Tensor:
        drawn, bits = drawn_tokens(batch, self._share)
        ids = corrupted(batch.ids, drawn, bits, self._mask_id, self._source.ordinary)
        tokens, sentences = self._both(batch, ids, drawn)
        return mean_loss(*tokens) + mean_loss(*sentences)

    def measure(self, batch: TokenBatch) -> Mapping[str, float]:
        """The tokens as without pairs, in the same rows."""
        drawn, _ = drawn_tokens(batch, self._share)
        with torch.no_grad():
            tokens, (logits, targets) = self._both(batch, np.where(drawn, self._mask_id, batch.ids), drawn)
            told = (logits.argmax(dim=1) == targets).sum()
            loss = mean_loss(logits, targets) * len(targets)
        about = {"pairs": float(len(targets)), "pair_loss": float(loss), "told": float(told)}
        return {**scores(*tokens), **about}

    def _both(self, batch: TokenBatch, ids: Ints, drawn: Bools) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Logits and targets of the drawn tokens, and of the rows that are pairs."""
        device = self._source.device
        found = outputs_at(self.module, batch.with_ids(ids).inputs(device), torch.from_numpy(drawn).to(device))
        targets = torch.from_numpy(batch.ids[drawn]).to(device)
        unrelated = np.full(len(batch), NO_CLAIM) if batch.unrelated is None else batch.unrelated
        pairs = np.flatnonzero(unrelated != NO_CLAIM)
        follows = found.seq_relationship_logits[torch.from_numpy(pairs).to(device)]
        return (found.prediction_logits[0], targets), (follows, torch.from_numpy(unrelated[pairs]).to(device))


def corrupted(ids: Ints, drawn: Bools, bits: U64, mask_id: int, ordinary: Ints) -> Ints:
    """What the model reads in place of the drawn tokens."""
    at = bits[drawn]
    how = again(at, "how")
    result = ids.copy()
    other = ordinary[below(again(at, "token"), ordinary.size)]
    result[drawn] = np.where(chosen(how, MASKED), mask_id, np.where(chosen(how, MASKED + RANDOM), other, ids[drawn]))
    return result


class NextTokens(TokenLearner):
    """A causal language model at work."""

    def __init__(self, source: Source) -> None:
        loaded = source.load("causal_lm")
        self.module = loaded.model
        self.body = loaded.model.base_model
        self.new = loaded.new
        self._device = source.device

    def predicted(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        followed = np.zeros_like(batch.real)
        followed[:, :-1] = batch.real[:, 1:]
        where = torch.from_numpy(followed).to(self._device)
        logits = logits_at(self.module, batch.inputs(self._device), where, use_cache=False)
        return logits, torch.from_numpy(np.roll(batch.ids, -1, axis=1)[followed]).to(self._device)
