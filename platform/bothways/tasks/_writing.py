"""Tasks whose predictions are texts: the model learns the next token of a target, and is scored on what it writes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bothways.contracts import Batch
from bothways.errors import UserError
from bothways.lazy import torch
from bothways.task_contract import Prediction
from bothways.tasks import Directions, some
from bothways.tasks._tokens import TokenTask, token_sums
from bothways.text_scores import METRICS, WIDTH, text_metrics, text_sums

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

_TOKENS = 3
"""Sums over tokens, before those over texts."""


class WritingTask(TokenTask):
    """`target_length`: tokens of a target, its end included; what is longer is cut. `generate`: when the model writes
    and is scored on it: of the test rows, at every evaluation (`always`), or never. `beams`: of beam search; 1 is
    greedy."""

    writes: ClassVar[bool] = True
    exclusive: ClassVar[bool] = False
    evaluation_rows: ClassVar[int] = 8
    score: ClassVar[str] = "accuracy of a target's tokens"
    ranking: ClassVar[tuple[str, ...]] = ("log_loss",)

    target_length: Annotated[int, Field(ge=2, le=4096)] = 32
    generate: Literal["never", "test", "always"] = "test"
    beams: Annotated[int, Field(ge=1, le=32)] = 1

    @property
    def directions(self) -> Directions:
        plain: Directions = {"log_loss": "min", "perplexity": "min", "token_accuracy": "max"}
        written: Directions = dict.fromkeys(METRICS, "max")
        return {**plain, **written} if self.generate == "always" else plain

    def generates(self, split: str) -> bool:
        return self.generate == "always" or (self.generate == "test" and split == "test")

    def column(self, labels: Sequence[str], classes: tuple[str, ...]) -> pa.Array:
        """string: the target."""
        import pyarrow as pa

        return pa.array(labels, pa.string())

    def blank(self, texts: Sequence[str]) -> pa.Array:
        import pyarrow as pa

        return pa.array([""] * len(texts), pa.string())

    @abstractmethod
    def write(self, module: Any, batch: Batch, temperature: float | None = None, **ids: int | None) -> Tensor:
        """Token ids that the model writes for each row, int64 (N, …). `temperature`: at which they are drawn, 0 for the
        likeliest one by one; None: as the task says. `ids`: `pad_token_id`, `eos_token_id`."""

    @abstractmethod
    def answered(self, batch: Batch, written: Tensor, *, end: int | None, pad_id: int) -> Batch:
        """The batch with what `write` has given for its rows as their targets."""

    def how(self, temperature: float | None) -> dict[str, Any]:
        """What transformers' `generate` is told."""
        if temperature:  # of all tokens: its own default is the likeliest fifty
            drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            return {"max_new_tokens": self.target_length, "num_beams": 1, **drawn}
        beams = self.beams if temperature is None else 1
        return {"max_new_tokens": self.target_length, "num_beams": beams, "do_sample": False}

    def width(self, classes: int) -> int:
        return _TOKENS + WIDTH

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """Those over tokens; those over texts are 0, see `text_sums`."""
        return torch.cat([token_sums(logits, batch.labels), torch.zeros(WIDTH, dtype=torch.float64)])

    def text_sums(self, written: Sequence[str], batch: Batch) -> Tensor:
        """What to add to `sums` for texts that were written for the batch."""
        return torch.tensor([0.0] * _TOKENS + text_sums(written, batch.references), dtype=torch.float64)

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """`log_loss` (nats a token), `perplexity`, `token_accuracy`; of what was written, `text_scores.METRICS`."""
        loss, right, tokens, *texts = sums.tolist()
        mean = loss / some(tokens)
        return {
            "log_loss": mean,
            "perplexity": math.exp(min(mean, 700.0)),
            "token_accuracy": right / tokens,
            **text_metrics(texts),
        }

    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]:
        raise UserError(f"{self.name} predicts what it writes, which logits do not hold")


def up_to_end(written: Tensor, end: int | None) -> Tensor:
    """Which of the tokens (N, T) are of the text, its end included, bool (N, T)."""
    if end is None:
        return torch.ones_like(written, dtype=torch.bool)
    ended: Tensor = (written == end).int().cumsum(dim=1)
    return (ended == 0) | ((ended == 1) & (written == end))
