"""Hidden-state mixup: the model reads a mixture of two rows and is asked for the mixture of their labels.

h = s h_i + (1 - s) h_j, L = 1/N sum_i s_i l(h, y_i) + (1 - s_i) l(h, y_j), with j a random partner of i in the batch,
s = max(b, 1 - b), b ~ Beta(a, a) (Zhang et al. 2018; TMix of MixText, Chen et al. 2020, for hidden states of text;
Guo et al. 2019 for embeddings). With s at least 1/2 a mixture is mostly its own row, as in MixText.

A mixture is as long as the longer of the two, and the shorter one adds nothing where it has ended; segments (token
types) are the row's own. MixText draws one b for a batch and reads padding with it; we draw one for each row and join
the masks. l(h, y_j) is the task's loss, so that for classification L is cross-entropy against the soft label.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from bothways.contracts import Batch, Forward, Loss, TaskLike
from bothways.lazy import torch
from bothways.output_side.mixing import Mixture
from bothways.output_side.objectives import Objective, plain
from bothways.registry import OBJECTIVES, Range

if TYPE_CHECKING:
    from collections.abc import Mapping


@OBJECTIVES.register("mixup")
class Mixup(Objective):
    """`a`: of the Beta distribution; a small one leaves most rows nearly as they are, a large one mixes them evenly.
    `layer`: how many of the encoder's layers read rows as they are; 0 mixes the input embeddings.
    """

    term = "hidden-state mixup"
    source = "mixup, Zhang et al. 2018; MixText, Chen et al. 2020"
    neutral: ClassVar[Mapping[str, Any]] = {"a": 0.0}

    a: Annotated[float, Field(ge=0.0), Range(0.1, 16.0, log=True)] = 0.4
    layer: Annotated[int, Field(ge=0), Range(0, 2)] = 0

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss:
        if self.a == 0:
            return plain(forward, batch, task)
        mixture = self._drawn(batch)
        if self.layer:
            with mixture.within(forward.layers(), self.layer):
                logits = forward(batch)
        else:
            joined = {**batch.inputs, "attention_mask": mixture.joined(mixture.mask)}
            logits = forward(replace(batch, inputs=joined), mixture.of(forward.embed(batch)))
        first = task.row_losses(logits, batch)
        second = task.row_losses(logits, replace(batch, labels=batch.labels[mixture.partners]))
        share = mixture.share.to(first.dtype)
        return Loss(
            total=(share * first + (1 - share) * second).mean(),
            parts={"supervised": first.detach().mean(), "partner": second.detach().mean()},
        )

    def _drawn(self, batch: Batch) -> Mixture:
        # On the CPU, so that a GPU mixes the same rows.
        drawn = torch.distributions.Beta(*torch.full((2,), self.a, dtype=torch.float64)).sample((len(batch),))
        partners = torch.randperm(len(batch))
        share = torch.maximum(drawn, 1 - drawn)
        return Mixture(share.to(batch.labels.device), partners.to(batch.labels.device), batch.inputs["attention_mask"])
