"""A learned vector for the source domain, added to the input embeddings of its rows, while features are aligned.

L = CE(source) + the term of `loss` (see `coral`, `mmd`, `dann`), where the labelled rows, the source, are read as
e + v: v (H) stands for what their domain says at every place, so that the layers need not carry it. The target has no
vector: what is added to the rows of both domains alike can as well be part of the position embeddings, which learn too.
So the model that is evaluated, saved and served, on the target domain, is an ordinary one, to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bothways.contracts import Batch, Forward
from bothways.errors import UserError
from bothways.lazy import torch
from bothways.output_side.alignment import Alignment, confusion, discriminator, rising, statistic
from bothways.registry import OBJECTIVES, Choices, Range

if TYPE_CHECKING:
    from torch import Tensor, nn


@OBJECTIVES.register("domain_embedding")
class DomainEmbedding(Alignment):
    """`loss`: what aligns the domains. `strength`: of it, on the scale of `loss`. `per_row`: unlabelled rows for each
    row of the batch.
    """

    term = "domain embedding, semantic embedding of a domain"
    source = "Sun & Saenko 2016; Long et al. 2015; Ganin et al. 2016"

    loss: Annotated[Literal["coral", "mmd", "dann"], Choices("coral", "mmd", "dann")] = "mmd"
    strength: Annotated[float, Field(ge=0.0), Range(0.1, 10.0, log=True)] = 1.0

    def modules(self, width: int, classes: int) -> nn.Module | None:
        if not self.strength:
            return None
        vector = torch.nn.Embedding(1, width)
        torch.nn.init.zeros_(vector.weight)
        judge = {"domain": discriminator(width)} if self.loss == "dann" else {}
        return torch.nn.ModuleDict({"vector": vector, **judge})

    def embeddings(self, forward: Forward, both: Batch, sources: int) -> Tensor | None:
        tokens = forward.embed(both)
        vector = forward.own(self).get_parameter("vector.weight")[0]
        if len(vector) != tokens.shape[-1]:
            raise UserError(
                f"domain_embedding: the model's features have {len(vector)} dimensions and its input embeddings "
                f"{tokens.shape[-1]}: take coral, mmd or dann by itself"
            )
        of_source = torch.arange(len(both), device=tokens.device) < sources
        return tokens + of_source[:, None, None] * vector

    def align(
        self, forward: Forward, source: Tensor, target: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.loss == "dann":
            judge = forward.own(self).get_submodule("domain")
            return confusion(judge, source, target, self.strength * rising(progress))
        apart = statistic(self.loss, forward, source, target)
        return self.strength * apart, {"distance": apart.detach()}
