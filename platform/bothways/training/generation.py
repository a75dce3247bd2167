"""What a model writes: read as text, scored, and given as predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bothways import training
from bothways.contracts import Batch
from bothways.models import Bundle
from bothways.task_contract import Prediction, TaskLike
from bothways.tokenization import ModelReader, tokenizer


class Written:
    """A task that is also scored on what its model writes; in everything else, the task itself."""

    def __init__(self, task: Any, bundle: Bundle) -> None:
        self._task = task
        self._bundle = bundle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """The task's, and those over the texts written for the batch. The model is in evaluation mode."""
        plain: Tensor = self._task.sums(logits, batch)
        total: Tensor = plain + self._task.text_sums(texts(self._task, self._bundle, batch), batch)
        return total


def scored(task: TaskLike, bundle: Bundle, split: str) -> TaskLike:
    """The task as the rows of a split are scored."""
    return cast("TaskLike", Written(task, bundle)) if task.generates(split) else task


def texts(task: Any, bundle: Bundle, batch: Batch) -> list[str]:
    """What the model writes for each row."""
    with torch.no_grad():
        ids = task.write(bundle.module, batch, pad_token_id=bundle.pad_id, eos_token_id=end_of(bundle))
    found = tokenizer(bundle.path, bundle.vocabulary).batch_decode(ids.tolist(), skip_special_tokens=True)
    return [text.strip() for text in found]


def end_of(bundle: Bundle) -> int | None:
    """The token that ends a text of the model, if it has one."""
    return ModelReader(path=bundle.path, vocabulary=bundle.vocabulary, max_length=1, start=bundle.start_id).end


def predictions(
    task: TaskLike, bundle: Bundle, batches: Sequence[Batch], classes: tuple[str, ...]
) -> Iterator[Prediction]:
    """What the model says of each row."""
    if task.writes:
        bundle.module.eval()
        for batch in batches:
            yield from (Prediction(label=text, value=text) for text in texts(task, bundle, batch))
        return
    forward = training.ModelForward(bundle.module, bundle.module, "fp32")
    for batch, logits in training.predictions(forward, batches):
        yield from task.predictions(logits.cpu(), batch.to("cpu"), classes)
