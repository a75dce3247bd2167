"""The input embedding, trained by rows: a step costs what has occurred in the texts, not the whole vocabulary.

Half of a small encoder's parameters are its vocabulary, and a few labelled rows use a tenth of it. To an optimiser that
works element by element, without weight decay, a row that has never occurred has gradient, moments and update zero:
leaving it out changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from bothways.contracts import Collective


def grown(matrix: Tensor, rows: int) -> Tensor:
    """`matrix` with as many `rows`, the new ones zero: to append to it again and again costs what is new.

    When its memory is full it moves to one with room for half as many rows again. It has to be a matrix that came from
    here, or one that owns its memory: behind a part of another one stand that one's rows.
    """
    old, width = matrix.shape
    if rows * width * matrix.element_size() > matrix.untyped_storage().nbytes():
        roomy = matrix.new_zeros(rows + rows // 2, width)
        roomy[:old] = matrix
        matrix = roomy
    return matrix.as_strided((rows, width), (width, 1))


class EmbeddingRows:
    """The A of an embedding's V rows that have occurred, in the order of their first step.

    `ids` (A,); `values` (A, H), a parameter that clipping and optimiser take like any other, though it grows; `start`
    (A, H), what the values were before their first step.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        vocabulary, width = embedding.weight.shape
        self._embedding = embedding
        self._weight = embedding.weight
        self._read: list[tuple[Tensor, Tensor]] = []
        self._slot = torch.full((vocabulary,), -1)
        self.ids = torch.zeros(0, dtype=torch.int64)
        self.values = nn.Parameter(torch.zeros(0, width))
        self.start = torch.zeros(0, width)
        self._gradient = torch.zeros(0, width)

    @classmethod
    def of(cls, module: nn.Module) -> EmbeddingRows | None:
        """Those of the module's input embedding, if it can be trained by rows.

        It can on a CPU (the memory of a GPU is fast enough for all rows), when it moves and nobody else shares it.
        """
        embedding = module.get_input_embeddings()  # type: ignore[operator]
        if type(embedding) is not nn.Embedding or embedding.max_norm is not None:
            return None
        weight = embedding.weight
        users = sum(value is weight for part in module.modules() for value in part.parameters(recurse=False))
        suits = weight.requires_grad and weight.device.type == "cpu" and users == 1
        return cls(embedding) if suits else None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While inside, look-ups note which rows they read. DDP has to be made inside: it then leaves the weight out,
        whose gradient only `gather` knows."""
        self._weight.requires_grad_(False)
        self._embedding.forward = self._look_up  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            del self._embedding.forward
            self._weight.requires_grad_(True)

    def _look_up(self, ids: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return functional.embedding(ids, self._weight)
        occurring, at = torch.unique(ids, return_inverse=True)
        rows = self._weight[occurring].requires_grad_()
        self._read.append((occurring, rows))
        return functional.embedding(at, rows)

    def gather(self, collective: Collective) -> None:
        """Set the gradient of `values` from all look-ups since the last call: the mean over the workers."""
        read = [(ids, rows.grad) for ids, rows in self._read if rows.grad is not None]
        self._read.clear()
        occurs = torch.zeros(len(self._slot), dtype=torch.int32)
        for ids, _ in read:
            occurs[ids] = 1
        occurring = collective.sum(occurs).nonzero()[:, 0]
        self._admit(occurring)
        self._gradient = gradient = grown(self._gradient, len(self.ids)).zero_()
        for ids, found in read:
            gradient.index_add_(0, self._slot[ids], found)
        if collective.world > 1:
            at = self._slot[occurring]
            gradient[at] = collective.sum(gradient[at]) / collective.world
        padding = self._embedding.padding_idx
        if padding is not None and self._slot[padding] >= 0:
            gradient[self._slot[padding]] = 0
        self.values.grad = gradient

    def forget(self) -> None:
        """Drop what look-ups have noted since the last `gather`: no row has occurred."""
        self._read.clear()

    def scatter(self) -> None:
        """Write `values` into the embedding, and drop their gradient."""
        self._weight[self.ids] = self.values.detach()
        self.values.grad = None

    def _admit(self, ids: Tensor) -> None:
        """Take rows in: those that are new, with their weights as they stand."""
        new = ids[self._slot[ids] < 0]
        if not len(new):
            return
        known, rows = len(self.ids), len(self.ids) + len(new)
        self._slot[new] = torch.arange(known, rows)
        self.ids = torch.cat([self.ids, new])
        self.start = grown(self.start, rows)
        self.values.data = grown(self.values.data, rows)
        self.start[known:] = self.values.data[known:] = self._weight[new]

    def weights(self) -> dict[str, Tensor]:
        """A copy of what `restore` takes."""
        return {"ids": self.ids.clone(), "values": self.values.detach().clone()}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Bring the embedding back to `weights`; a row that had not occurred then, back to where it started."""
        self._admit(weights["ids"])
        self.values.data = self.start.clone()
        self.values.data[self._slot[weights["ids"]]] = weights["values"]
        self.scatter()
