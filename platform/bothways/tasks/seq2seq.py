"""Sequence to sequence: a text is written from a text. Summarisation, translation (Sutskever et al. 2014).

For encoder-decoders (T5, BART); an encoder becomes one, with itself as the decoder and new cross-attention (Rothe et
al. 2020). The label of token t is target token t; the decoder reads the target one token behind. A start token that the
tokenizer puts before the target is left out where the decoder begins with that token anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from bothways.contracts import NO_LABEL, Batch
from bothways.registry import TASKS, unless
from bothways.task_contract import Architecture, Reader
from bothways.tasks._writing import WritingTask, up_to_end

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@TASKS.register("seq2seq")
class Seq2Seq(WritingTask):
    """An encoder-decoder (T5, BART, …) writes the target; of an encoder (BERT, …) it becomes one.

    `decoder_layers`: how many of an encoder's layers its decoder has, the first ones; null: all. Reading is done once,
    writing token by token, so that few save time (deep encoder, shallow decoder, Kasai et al. 2021).
    """

    term = "sequence to sequence: summarisation, translation"
    source = "Sutskever et al. 2014; encoders as both halves, Rothe et al. 2020"

    decoder_layers: Annotated[int | None, Field(ge=1), unless(None)] = None

    def architecture(self, classes: tuple[str, ...]) -> Architecture:
        return Architecture(auto=("AutoModelForSeq2SeqLM", "EncoderDecoderModel"), decoder_layers=self.decoder_layers)

    def encode(self, rows: pa.Table, columns: Sequence[str], reader: Reader) -> dict[str, pa.Array]:
        """`decoder_input_ids` and `label`, lists of equal length."""
        import pyarrow as pa
        import pyarrow.compute as pc

        inputs = reader.inputs(*(rows[name] for name in columns))
        target = reader.inputs(rows["label"], max_length=self.target_length)["input_ids"]
        firsts = pc.list_slice(target, 0, 1).flatten().to_numpy()
        if (firsts == reader.start).all():  # else it would have to be told from the first token by its place
            target = pc.list_slice(target, 1)
        ids, offsets = target.flatten().to_numpy(), target.offsets.to_numpy()
        read = np.roll(ids, 1)
        read[offsets[:-1][np.diff(offsets) > 0]] = reader.start
        decoder = pa.ListArray.from_arrays(offsets, pa.array(read, pa.int32()))
        return {**inputs, "decoder_input_ids": decoder, "label": target, "reference": rows["label"]}

    def write(self, module: Any, batch: Batch, temperature: float | None = None, **ids: int | None) -> Tensor:
        inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
        written: Tensor = module.generate(**inputs, **ids, **self.how(temperature))
        return written

    def answered(self, batch: Batch, written: Tensor, *, end: int | None, pad_id: int) -> Batch:
        """`written` begins with the decoder's start token."""
        tokens = written[:, 1:]
        real = up_to_end(tokens, end)
        inputs = {**batch.inputs, "decoder_input_ids": written[:, :-1]}
        return replace(batch, inputs=inputs, labels=tokens.masked_fill(~real, NO_LABEL))
