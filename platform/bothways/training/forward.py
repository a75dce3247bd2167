"""The model as objectives see it, and as it is asked for predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bothways.contracts import Batch, Collective, Drawn, ObjectiveLike, Outputs, Said, TaskLike, Teacher
from bothways.errors import UserError
from bothways.output_side.trainable import layers
from bothways.task_contract import Prediction
from bothways.training import agreement
from bothways.training.arithmetic import autocast

MOST_ROWS = 128
"""That the model reads at once without gradient; a batch has more where one row of the data is more than these."""

Own = dict[ObjectiveLike, nn.Module]


class SpeakerLike(Protocol):
    """What a model's answers are, to `ModelForward`: see `answers.Speaker`."""

    def draw(self, forward: ModelForward, batch: Batch, count: int, temperature: float) -> Drawn: ...

    def read(self, batch: Batch) -> tuple[str, ...]: ...

    def judge(self, judge: Teacher, said: Said) -> Sequence[Prediction]: ...


class ModelForward:
    """`contracts.Forward` over a transformers model: `wrapped` synchronises gradients, `module` is the bare model.

    `own`: what objectives have beside the model. `collective`: the workers; None: this one alone. `start`: the model
    as it was before training. `speaker`: knows what answers are.
    """

    def __init__(
        self,
        module: nn.Module,
        wrapped: nn.Module,
        precision: str,
        own: Own | None = None,
        collective: Collective | None = None,
        *,
        start: nn.Module | None = None,
        speaker: SpeakerLike | None = None,
    ) -> None:
        self.module = module
        self.wrapped = wrapped
        self._precision = precision
        self._own = own or {}
        self._collective = collective
        self._start = start
        self._speaker = speaker

    def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        return self.through(self.wrapped, batch, embeddings)

    @torch.no_grad()
    def reference(self, batch: Batch) -> Tensor:
        assert self._start is not None
        return self.through(self._start, batch, None)

    @torch.no_grad()
    def draw(self, batch: Batch, count: int, temperature: float = 1.0) -> Drawn:
        assert self._speaker is not None
        with evaluating(self.module):
            return self._speaker.draw(self, batch, count, temperature)

    def read(self, batch: Batch) -> tuple[str, ...]:
        assert self._speaker is not None
        return self._speaker.read(batch)

    def judge(self, judge: Teacher, said: Said) -> Sequence[Prediction]:
        assert self._speaker is not None
        return self._speaker.judge(judge, said)

    def outputs(self, batch: Batch, embeddings: Tensor | None = None) -> Outputs:
        last = last_linear(self.module)
        with input_of(last) as read:
            logits = self(batch, embeddings)
        return Outputs(logits, read[0].float(), last.weight)

    def own(self, objective: ObjectiveLike) -> nn.Module:
        return self._own[objective]

    def head(self, features: Tensor, *, frozen: bool = False) -> Tensor:
        last = last_linear(self.module)
        weights = {name: value.detach() if frozen else value for name, value in last.named_parameters()}
        return nn.functional.linear(features, **weights)  # and not `last` itself, which may look for a row's last token

    def gather(self, rows: Tensor) -> Tensor:
        workers = self._collective
        if workers is None or workers.world == 1:
            return rows
        fixed = rows.detach()
        mine = np.s_[workers.rank :: workers.world]
        everyone = fixed.new_zeros(len(rows) * workers.world, *rows.shape[1:])
        everyone[mine] = fixed
        everyone = workers.sum(everyone)
        # The workers' gradients are averaged, and each has only its own rows': these count once for each worker.
        everyone[mine] = fixed + workers.world * (rows - fixed)
        return everyone

    def embed(self, batch: Batch) -> Tensor:
        embedding: nn.Module = self.module.get_input_embeddings()  # type: ignore[operator]
        looked_up: Tensor = embedding(batch.inputs["input_ids"])
        return looked_up

    def inner(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        return self.through(self.module, batch, embeddings)

    def agreement(
        self, batch: Batch, others: Batch, task: TaskLike, *, head: bool = False, shares: Tensor | None = None
    ) -> Tensor:
        moving = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        if head:
            last = {id(value) for value in last_linear(self.module).parameters()}
            moving = {name: value for name, value in moving.items() if id(value) in last}
        slope = agreement.slope(self, others, task, moving, by_rows=not head, shares=shares)
        if self._collective is not None:
            slope = slope.mean_over(self._collective)
        return agreement.along(self, batch, task, slope)

    def vocabulary(self) -> Tensor:
        found: Tensor = self.module.get_input_embeddings().weight.detach()  # type: ignore[operator]
        return found

    def layers(self) -> nn.ModuleList:
        return layers(self.module)

    def parameters(self) -> Iterator[Tensor]:
        return (value for value in self.module.parameters() if value.requires_grad)

    def through(self, module: Callable[..., Any], batch: Batch, embeddings: Tensor | None) -> Tensor:
        """Logits of `module`, which is called as the model is."""
        inputs = dict(batch.inputs)
        if embeddings is not None:
            del inputs["input_ids"]
            inputs["inputs_embeds"] = embeddings
        with autocast(self._precision, batch.labels.device):
            try:
                logits = _logits_of(module(**inputs))
            except NotImplementedError as error:  # transformers, of T5 and BART as classifiers
                if embeddings is None:
                    raise
                raise UserError(
                    f"{type(self.module).__name__} reads no embeddings, which an objective needs"
                ) from error
        return logits.float()


def _logits_of(output: Any) -> Tensor:
    """The logits of a model's output; those of first and last tokens of answers, (N, T) each, as (N, 2, T)."""
    found: Tensor = output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], 1)
    return found


def last_linear(module: nn.Module) -> nn.Linear:
    """The layer that makes the logits: the model's last linear one."""
    return [part for part in module.modules() if isinstance(part, nn.Linear)][-1]


@contextmanager
def input_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What `layer` reads while inside."""
    read: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        yield read
    finally:
        hook.remove()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode inside, in training mode afterwards."""
    module.eval()
    try:
        yield
    finally:
        module.train()


def predictions(forward: ModelForward, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Tensor]]:
    """Every batch with its logits (N, C), in evaluation mode. The model is in training mode again afterwards."""
    with evaluating(forward.module):
        for batch in batches:
            parts = [batch.slice(start, start + MOST_ROWS) for start in range(0, len(batch), MOST_ROWS)]
            with torch.no_grad():
                logits = torch.cat([forward.inner(part) for part in parts])
            yield batch, logits
