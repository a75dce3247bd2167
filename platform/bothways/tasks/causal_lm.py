"""Causal language modelling: a decoder goes on from a text. Instruction tuning, generation (Ouyang et al. 2022).

A row is prompt, target, end. A prompt is the text with a separator behind it, or the text in a template. The label of
token t is token t + 1 where that is of the target, else none: the prompt is read and not learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from bothways.contracts import NO_LABEL, Batch
from bothways.errors import UserError
from bothways.lazy import torch
from bothways.registry import TASKS, unless
from bothways.task_contract import Architecture, Reader
from bothways.tasks._prompts import FEWEST, I32, Prompt, ids_of, lists
from bothways.tasks._writing import WritingTask, up_to_end

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from bothways.config import Experiment

_CHAT = "chat"


@TASKS.register("causal_lm")
class CausalLM(WritingTask):
    """A decoder (GPT-2, Llama, …) goes on from the text, and its pair. `separator`: what stands behind each.

    `template`: how a prompt is written instead, with `{text}` in the place of the text and `{pair}` in that of its
    pair; or `chat`: as the tokenizer's chat template writes it, the text (a separator, and its pair) being what the
    user says. A template that is written out has the tokenizer's first special token in front; names of special tokens
    in it are those tokens.

    A prompt may fill `model.max_length` less `target_length`; a longer text is cut at its end, what stands around it
    stays.
    """

    term = "causal language modelling: instruction tuning, generation"
    source = "Radford et al. 2019; instruction tuning, Ouyang et al. 2022"

    separator: str = "\n"
    template: Annotated[str | None, unless(None)] = None

    def check(self, experiment: Experiment) -> None:
        room = experiment.model.max_length - self.target_length
        if room < FEWEST:
            raise UserError(
                f"model.max_length {experiment.model.max_length} leaves {room} tokens for the prompt beside "
                f"task.target_length {self.target_length}: raise the one or lower the other"
            )
        if self.template is not None and self.template != _CHAT:
            Prompt.of(self.template).refuse_misfit(paired=experiment.data.pair is not None)

    def architecture(self, classes: tuple[str, ...]) -> Architecture:
        return Architecture(auto=("AutoModelForCausalLM",), settings=(("is_decoder", True),))

    def encode(self, rows: pa.Table, columns: Sequence[str], reader: Reader) -> dict[str, pa.Array]:
        """`input_ids` and `label`, lists of equal length."""
        import pyarrow as pa

        prompts = self._prompts([rows[name] for name in columns], reader)
        targets = ids_of(rows["label"], reader)
        end = [] if reader.end is None else [reader.end]
        ids, labels = [], []
        for prompt, target in zip(prompts, targets, strict=True):
            written = np.concatenate([target[: self.target_length - len(end)], end]).astype(np.int32)
            ids.append(np.concatenate([prompt, written]))
            labels.append(np.append(np.append(np.full(len(prompt), NO_LABEL), written)[1:], NO_LABEL).astype(np.int32))
        columns_ = {"input_ids": ids, "label": labels}
        arrays = {name: pa.array(found, pa.list_(pa.int32())) for name, found in columns_.items()}
        return {**arrays, "reference": rows["label"]}

    def _prompts(self, columns: list[pa.ChunkedArray], reader: Reader) -> list[I32]:
        """What stands before each row's target."""
        import pyarrow as pa

        room = reader.max_length - self.target_length
        if self.template is not None:
            names = ("{text}", "{pair}")[: len(columns)]
            asked = reader.chat(self.separator.join(names)) if self.template == _CHAT else self.template
            return Prompt.of(asked).filled(columns, reader, room, opened=self.template != _CHAT)
        separator = ids_of(pa.chunked_array([[self.separator]]), reader)[0]
        texts = zip(*(column.to_pylist() for column in columns), strict=True)
        joined = pa.chunked_array([pa.array([self.separator.join(row) for row in texts], pa.string())])
        prompts = lists(reader.inputs(joined, max_length=max(1, room - len(separator)))["input_ids"])
        return [np.concatenate([prompt, separator]) for prompt in prompts]

    def answered(self, batch: Batch, written: Tensor, *, end: int | None, pad_id: int) -> Batch:
        counts, real = _prompt_lengths(batch), up_to_end(written, end)
        whole = counts + real.sum(dim=1)
        at = torch.arange(int(whole.max()), device=counts.device)
        of_prompt, inside = at < counts[:, None], at < whole[:, None]
        ids = batch.inputs["input_ids"]
        read = ids.gather(1, at.clamp_max(ids.shape[1] - 1).expand(len(ids), -1))
        place = (at - counts[:, None]).clamp(0, written.shape[1] - 1)
        ids = torch.where(of_prompt, read, written.gather(1, place)).masked_fill(~inside, pad_id)
        labels = ids.roll(-1, dims=1).masked_fill((at < counts[:, None] - 1) | (at >= whole[:, None] - 1), NO_LABEL)
        return replace(batch, inputs={"input_ids": ids, "attention_mask": inside.long()}, labels=labels)

    def write(self, module: Any, batch: Batch, temperature: float | None = None, **ids: int | None) -> Tensor:
        """Prompts are put in from the left, so that all rows go on at the same place."""
        counts = _prompt_lengths(batch)
        longest = int(counts.max())
        at = torch.arange(longest, device=counts.device) - longest + counts[:, None]
        prompts = batch.inputs["input_ids"].gather(1, at.clamp_min(0))
        written: Tensor = module.generate(
            input_ids=prompts, attention_mask=(at >= 0).long(), **ids, **self.how(temperature)
        )
        return written[:, longest:]


def _prompt_lengths(batch: Batch) -> Tensor:
    """Tokens before the first of each target, (N,)."""
    return (batch.labels != NO_LABEL).int().argmax(dim=1) + 1
