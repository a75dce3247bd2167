"""Cycle consistency: from a changed text, or from a target, there has to be a way back to the original.

The idea is that of dual learning (He et al. 2016) and of cycles between domains (Zhu et al. 2017): what a change has
left of a text must be enough to find the text again.

`reconstruct`, for encoders: x' is x as the input side's policy changes it, f(x') the features of which the model makes
its prediction, and a small decoder of its own writes x, token by token, knowing of x' nothing but f(x'):

L = CE + strength * 1/M sum_j 1/|x_j| sum_t -log p(x_j,t+1 | x_j,1…t, f(x'_j))

over M rows x beside the batch. It is the denoising loss of TSDAE (Wang et al. 2021), with the policy's changes in place
of deletions, during the training. The decoder is one Transformer layer; what it reads, and the last matrix that makes
probabilities of tokens, are the model's input embeddings as they stand. So the encoder learns through f(x') only. A
policy without operations leaves x' = x, an autoencoder.

`dual`, for sequence to sequence: the same model also learns the way back, from a row's target y to its text x, with the
two tasks' likelihoods as in dual supervised learning (Xia et al. 2017), without their further term:

L = CE(y | x) + strength * CE(x | y)

The whole round trip of He et al., whose middle is a text that the model has written itself, is not part of it: writing
one in every step costs many passes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bothways.contracts import NO_LABEL, Batch, Beside, Forward, Loss, TaskLike
from bothways.errors import UserError
from bothways.lazy import functional, torch
from bothways.output_side.objectives import PLAIN, Objective, plain
from bothways.registry import OBJECTIVES, Choices, Range
from bothways.task_contract import Logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

HEAD_WIDTH = 64
"""Of an attention head of the decoder, if the width of the features divides so."""


@OBJECTIVES.register("cycle_consistency")
class CycleConsistency(Objective):
    """`strength`: weight of the way back. `method`: `reconstruct` a text from its changed copy, for classes, or `dual`,
    for seq2seq. `rows`: which are reconstructed, the data's unlabelled text or the labelled rows over again; `per_row`:
    of them for each row of the batch (dual: its own).
    """

    term = "cycle consistency, dual learning, denoising"
    source = "He et al. 2016; Zhu et al. 2017; TSDAE, Wang et al. 2021; dual supervised learning, Xia et al. 2017"
    neutral: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0), Range(0.01, 1.0, log=True)] = 0.1
    method: Literal["reconstruct", "dual"] = "reconstruct"
    rows: Annotated[Literal["unlabelled", "labelled"], Choices("unlabelled", "labelled")] = "labelled"
    per_row: Annotated[int, Field(ge=1, le=16), Range(1, 4)] = 1

    @property
    def logits(self) -> tuple[Logits, ...]:
        return ("classes",) if self.method == "reconstruct" else ("tokens",)

    @property
    def passes(self) -> tuple[int, int]:
        if not self.strength:
            return PLAIN
        return (1 + self.per_row, 1 + self.per_row) if self.method == "reconstruct" else (2, 2)

    @property
    def beside(self) -> Beside | None:
        back = self.strength and self.method == "reconstruct"
        return Beside(source=self.rows, per_row=self.per_row, changed=True) if back else None

    def modules(self, width: int, classes: int) -> nn.Module | None:
        if self.beside is None:
            return None
        heads = max(n for n in range(1, max(1, width // HEAD_WIDTH) + 1) if width % n == 0)
        layer = torch.nn.TransformerDecoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True)
        return torch.nn.ModuleDict({"reads": torch.nn.LayerNorm(width), "layer": layer})

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if not self.strength:
            return plain(forward, batch, task)
        if self.method == "dual":
            return self._dual(forward, batch, task)
        assert self.beside is not None
        originals, changed = batch.beside[self.beside]
        found = forward.outputs(batch.join(changed))
        hard = task.row_losses(found.logits[: len(batch)], batch).mean()
        back = denoising(forward.own(self), forward.vocabulary(), originals, found.features[len(batch) :]).mean()
        return Loss(
            total=hard + self.strength * back,
            parts={"supervised": hard.detach(), "reconstruction": back.detach()},
        )

    def _dual(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if "decoder_input_ids" not in batch.inputs:
            raise UserError(f"cycle_consistency.method dual needs an encoder and a decoder: {task.name} has no decoder")
        there, back = there_and_back(batch)
        forth, home = forward(there.join(back)).tensor_split([len(batch)])
        hard, dual = task.row_losses(forth, there).mean(), task.row_losses(home, back).mean()
        return Loss(total=hard + self.strength * dual, parts={"supervised": hard.detach(), "dual": dual.detach()})


def denoising(decoder: nn.Module, vocabulary: Tensor, originals: Batch, left: Tensor) -> Tensor:
    """-log p of each row's tokens but the first, mean over them, (M,), given those before and what is `left`, (M, H).

    `vocabulary`: the token embeddings (V, H).
    """
    if vocabulary.shape[1] != left.shape[1]:
        raise UserError(
            f"cycle_consistency writes with the model's input embeddings: those have {vocabulary.shape[1]} numbers, "
            f"its features {left.shape[1]}; take another model"
        )
    ids, real = originals.inputs["input_ids"], originals.inputs["attention_mask"].bool()
    read, following = ids[:, :-1], real[:, 1:]
    embedded = vocabulary[read].to(left.dtype)
    length = read.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
    seen = decoder.get_submodule("reads")(embedded) + positions(length, left.shape[1]).to(left)
    hidden = decoder.get_submodule("layer")(seen, left[:, None], tgt_mask=later)
    scores = hidden[following] @ vocabulary.to(left.dtype).T
    losses = torch.zeros_like(following, dtype=left.dtype)
    losses[following] = functional.cross_entropy(scores, ids[:, 1:][following], reduction="none")
    mean: Tensor = losses.sum(dim=1) / following.sum(dim=1).clamp_min(1)
    return mean


def positions(length: int, width: int) -> Tensor:
    """Sines and cosines of the places 0 … length - 1, (length, width) (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


def there_and_back(batch: Batch) -> tuple[Batch, Batch]:
    """The batch, and the same rows with text and target exchanged, padded alike."""
    text, mask, read = (batch.inputs[name] for name in ("input_ids", "attention_mask", "decoder_input_ids"))
    start = read[:, :1]
    target, real = batch.labels, batch.labels != NO_LABEL
    written, shown = text, mask
    if bool((text[:, :1] == start).all()):  # of warm-started encoders: what is read begins so, what is written does not
        written, shown = text[:, 1:], mask[:, 1:]
        target, real = (
            torch.cat([start, target], dim=1),
            torch.cat([torch.ones_like(start, dtype=torch.bool), real], dim=1),
        )
    width = max(text.shape[1], target.shape[1])

    def wide(values: Tensor, fill: int) -> Tensor:
        return functional.pad(values, (0, width - values.shape[1]), value=fill)

    others = {name: wide(values, 0) for name, values in batch.inputs.items()}
    filler = int(start[0, 0])  # of places that nobody attends to
    there = others | {"input_ids": wide(text, filler), "decoder_input_ids": wide(read, filler)}
    as_text = torch.where(real, target, torch.full_like(target, filler))
    back = {name: torch.zeros_like(values) for name, values in others.items()} | {
        "input_ids": wide(as_text, filler),
        "attention_mask": wide(real.to(mask.dtype), 0),
        "decoder_input_ids": wide(torch.cat([start, written[:, :-1]], dim=1), filler),
    }
    as_target = written.masked_fill(shown == 0, NO_LABEL)
    return (
        replace(batch, inputs=there, labels=wide(batch.labels, NO_LABEL), beside={}, taught={}),
        replace(batch, inputs=back, labels=wide(as_target, NO_LABEL), beside={}, taught={}, references=()),
    )
