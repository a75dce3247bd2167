"""A model's own answers, for objectives that learn from them: drawn, written out as rows with labels, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bothways.contracts import NO_LABEL, Batch, Drawn, Said, Teacher
from bothways.errors import UserError
from bothways.models import Bundle
from bothways.output_side.teacher import content
from bothways.predict import Predictor
from bothways.task_contract import Prediction
from bothways.tokenization import tokenizer
from bothways.training import ModelForward, generation
from bothways.training.workspace import Workspace


class Speaker:
    """What answers are for a task and a model: one of `labels` for each row, or a text that the model writes.

    `workspace`: keeps loaded judges for later trials.
    """

    def __init__(self, task: Any, bundle: Bundle, labels: Sequence[str], workspace: Workspace) -> None:
        self._task = task
        self._bundle = bundle
        self._labels = labels
        self._workspace = workspace

    def draw(self, forward: ModelForward, batch: Batch, count: int, temperature: float) -> Drawn:
        """See `contracts.Forward.draw`. The model is in evaluation mode."""
        asked = replace(batch, beside={}, taught={}, references=())
        rows = asked.repeat(count)
        if self._task.writes:
            answered = self._written(forward, rows, temperature)
        else:
            answered = replace(rows, labels=_drawn(forward.inner(asked), count, temperature))
        prompts, references = self._prompts(rows), self.read(rows)
        return Drawn(answered=answered, said=Said(prompts=prompts, answers=self.read(answered), references=references))

    def read(self, batch: Batch) -> tuple[str, ...]:
        """The labels of the rows as text."""
        if batch.labels.dim() == 1:
            return tuple(self._labels[label] for label in batch.labels.tolist())
        return self._texts(batch.labels.masked_fill(batch.labels == NO_LABEL, self._bundle.pad_id))

    def judge(self, judge: Teacher, said: Said) -> Sequence[Prediction]:
        """What the saved model `judge` predicts for each answer; with its text as the first of a pair, if it reads
        pairs. Raises `UserError` when it has changed since the experiment was made."""
        key = ("judge", judge, str(self._workspace.device))
        predictor = self._workspace.remember(key, lambda: _loaded(judge, self._workspace.device))
        if predictor.paired:
            return predictor(_some(said.prompts), _some(said.answers))
        return predictor(_some(said.answers))

    def _written(self, forward: ModelForward, rows: Batch, temperature: float) -> Batch:
        end = generation.end_of(self._bundle)
        pad_id = self._bundle.pad_id
        written = self._task.write(forward.module, rows, temperature=temperature, pad_token_id=pad_id, eos_token_id=end)
        answered: Batch = self._task.answered(rows, written, end=end, pad_id=pad_id)
        return answered

    def _prompts(self, rows: Batch) -> tuple[str, ...]:
        """What was read, as text: that of which no answer is part."""
        ids = rows.inputs["input_ids"].masked_fill(rows.inputs["attention_mask"] == 0, self._bundle.pad_id)
        if self._task.writes and "decoder_input_ids" not in rows.inputs:  # the answer follows in the same text
            before = (rows.labels != NO_LABEL).cumsum(dim=1) == 0
            before = torch.cat([torch.ones_like(before[:, :1]), before[:, :-1]], dim=1)
            ids = ids.masked_fill(~before, self._bundle.pad_id)
        return self._texts(ids)

    def _texts(self, ids: Tensor) -> tuple[str, ...]:
        found = tokenizer(self._bundle.path, self._bundle.vocabulary).batch_decode(
            ids.tolist(), skip_special_tokens=True
        )
        return tuple(text.strip() for text in found)


def _loaded(judge: Teacher, device: torch.device) -> Predictor:
    if (found := content(judge.directory)) != judge.digest:
        raise UserError(
            f"reward model {judge.directory} has changed since the experiment was made ({judge.digest}, now {found}): "
            "leave `digest` out to take it as it is now"
        )
    return Predictor(Path(judge.directory).expanduser(), device)


def _some(texts: Sequence[str]) -> list[str]:
    """The texts, a space for an empty one: a model reads something of everything."""
    return [text or " " for text in texts]


def _drawn(logits: Tensor, count: int, temperature: float) -> Tensor:
    """`count` classes for each row of logits (N, C), draw after draw, (count x N,)."""
    if not temperature:
        return logits.argmax(dim=-1).repeat(count)
    return torch.multinomial((logits / temperature).softmax(dim=-1), count, replacement=True).T.flatten()
