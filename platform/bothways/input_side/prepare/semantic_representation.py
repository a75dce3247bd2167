"""Sentence representations learnt from the task's own texts, without labels.

`simcse` (unsupervised SimCSE, Gao et al. 2021): a text is encoded twice under dropout, and is to find its other view
among those of the batch: -1/N Σ log exp(cos(h_i, h'_i)/τ) / Σ_j exp(cos(h_i, h'_j)/τ). As in the paper, the first
token goes through a dense layer with tanh while training and without it afterwards.
`tsdae` (Wang et al. 2021): words are deleted from a text, and a decoder whose only knowledge of it is the vector of
what is left writes the text as it was. The decoder shares the encoder's weights, but for its attention to that vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.errors import UserError
from bothways.input_side.language_modelling import TokenLearner, logits_at, mean_loss, scores
from bothways.input_side.preparation import Learner, Preparation, Source, TokenBatch
from bothways.input_side.transform import chosen
from bothways.lazy import functional, torch
from bothways.registry import PREPARATIONS, Choices, Range
from bothways.seeding import streams

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["first", "mean"]


@PREPARATIONS.register("semantic_representation")
class SemanticRepresentation(Preparation):
    """`steps` of `batch_size` texts; 0 leaves the model alone. `lr`: peak rate; `head_lr`: of what is new and goes
    afterwards (null: `lr`). `pooling`: the text's vector is its first token's, or the mean of all. `temperature`: τ of
    simcse. `deletion`: share of the tokens that tsdae deletes, never all of them."""

    term: ClassVar[str] = "representation learning (SimCSE, TSDAE)"
    source: ClassVar[str] = "Gao et al. 2021, SimCSE; Wang et al. 2021, TSDAE"

    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0.0, le=1.0), Range(1e-5, 3e-4, log=True)] = 3e-5
    head_lr: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    method: Annotated[Literal["simcse", "tsdae"], Choices("simcse", "tsdae")] = "simcse"
    pooling: Annotated[Pooling, Choices("first", "mean")] = "first"
    temperature: Annotated[float, Field(gt=0.0), Range(0.03, 0.2, log=True)] = 0.05
    deletion: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.3, 0.7)] = 0.6

    def learner(self, source: Source) -> Learner:
        if source.causal and self.pooling == "first":
            raise UserError(
                f"semantic_representation: the first token of {source.name}, a decoder, knows nothing of the others: "
                "set pooling to mean"
            )
        if self.method == "tsdae":
            return Denoising(source, self.pooling, self.deletion)
        return TwoViews(source, self.pooling, self.temperature)


def pooled(hidden: Tensor, real: Tensor, pooling: Pooling) -> Tensor:
    """A vector for each text, (N, H), from hidden states (N, T, H) and what of them is no padding, (N, T)."""
    if pooling == "first":
        return hidden[:, 0]
    weights = real.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


class TwoViews(Learner):
    """SimCSE at work."""

    def __init__(self, source: Source, pooling: Pooling, temperature: float) -> None:
        loaded = source.load("encoder")
        self.body = loaded.model
        parts = [loaded.model]
        new = {f"0.{name}" for name in loaded.new}
        if pooling == "first":
            parts.append(source.dense(loaded.model.config.hidden_size))
            new |= {"1.weight", "1.bias"}
        self.module = torch.nn.ModuleList(parts).to(source.device)
        self.new = frozenset(new)
        self._device = source.device
        self._pooling: Pooling = pooling
        self._temperature = temperature

    def loss(self, batch: TokenBatch) -> Tensor:
        return mean_loss(*self._similarities(batch))

    def measure(self, batch: TokenBatch) -> Mapping[str, float]:
        """Under dropout too: without it the two views are one."""
        self.module.train()
        with torch.no_grad():
            return scores(*self._similarities(batch))

    def _similarities(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """cos/τ of every text's first view to every text's second, (N, N), and which of these is its own. A text that
        stands in the batch twice is not asked to be unlike itself."""
        inputs = {name: values.repeat(2, 1) for name, values in batch.inputs(self._device).items()}
        vectors = pooled(self.body(**inputs).last_hidden_state, inputs["attention_mask"], self._pooling)
        if self._pooling == "first":
            vectors = torch.tanh(self.module[1](vectors))  # type: ignore[index]
        first, second = functional.normalize(vectors, dim=1).chunk(2)
        same = batch.rows[:, None] == batch.rows[None, :]
        np.fill_diagonal(same, False)
        logits = first @ second.T / self._temperature
        logits = logits.masked_fill(torch.from_numpy(same).to(self._device), -torch.inf)
        return logits, torch.arange(len(batch), device=self._device)


class Denoising(TokenLearner):
    """TSDAE at work."""

    def __init__(self, source: Source, pooling: Pooling, deletion: float) -> None:
        encoder, decoder = source.load("encoder"), source.load("decoder")
        shared = _share(decoder.model, encoder.model)
        self.body = encoder.model
        self.module = torch.nn.ModuleList([encoder.model, decoder.model]).to(source.device)
        prefix = decoder.model.base_model_prefix
        own = {name for name in decoder.new if name.removeprefix(f"{prefix}.") not in shared}
        self.new = frozenset({f"0.{name}" for name in encoder.new} | {f"1.{name}" for name in own})
        self._decoder = decoder.model
        self._source = source
        self._pooling: Pooling = pooling
        self._deletion = deletion

    def predicted(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        device = self._source.device
        left = self._left(batch).inputs(device)
        vectors = pooled(self.body(**left).last_hidden_state, left["attention_mask"], self._pooling)
        followed = np.zeros_like(batch.real)
        followed[:, :-1] = batch.real[:, 1:]
        logits = logits_at(
            self._decoder,
            batch.inputs(device),
            torch.from_numpy(followed).to(device),
            encoder_hidden_states=vectors[:, None],
            use_cache=False,
        )
        return logits, torch.from_numpy(np.roll(batch.ids, -1, axis=1)[followed]).to(device)

    def _left(self, batch: TokenBatch) -> TokenBatch:
        """What deletion leaves of the texts, moved together."""
        bits = streams(batch.keys, np.full(len(batch), batch.ids.shape[1])).reshape(batch.ids.shape)
        free = ~batch.special
        kept = batch.real & ~(free & chosen(bits, self._deletion))
        none = np.flatnonzero(~(kept & free).any(axis=1) & free.any(axis=1))
        kept[none, np.where(free[none], bits[none], np.uint64(0)).argmax(axis=1)] = True
        order = np.argsort(~kept, axis=1, kind="stable")
        width = int(kept.sum(axis=1).max())
        kept = np.take_along_axis(kept, order, axis=1)[:, :width]
        ids = np.take_along_axis(batch.ids, order, axis=1)[:, :width]
        return batch.with_ids(np.where(kept, ids, self._source.pad_id), kept)


def _share(decoder: Any, encoder: Any) -> set[str]:
    """Make the parameters of the decoder's body the encoder's own wherever both have one of a name, and with them
    whatever else of the decoder is tied to these. Returns those names."""
    theirs = dict(encoder.named_parameters())
    instead = {id(value): theirs[name] for name, value in decoder.base_model.named_parameters() if name in theirs}
    for part in decoder.modules():
        for name, value in part.named_parameters(recurse=False):
            if id(value) in instead:
                setattr(part, name, instead[id(value)])
    return {name for name, _ in decoder.base_model.named_parameters() if name in theirs}
