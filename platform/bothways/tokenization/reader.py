"""A model's tokenizer as a task sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from tokenizers import Encoding

from bothways.errors import UserError
from bothways.task_contract import I64, Aligned
from bothways.tokenization.encoder import Backend, Encoded, Encoder, encoder, encoder_of, tokenizer
from bothways.tokenization.vocabulary import Vocabulary

_CLOCK = "strftime_now"
_STOPPED = f"{{% macro {_CLOCK}(format) %}}26 Jul 2024{{% endmacro %}}"
"""Before templates that tell the model what day it is: with the real one, a prompt would be another tomorrow."""


@dataclass(frozen=True, kw_only=True)
class ModelReader:
    """`task_contract.Reader` of the model at `path`, as far as `vocabulary` goes (None: all of it).

    `backend`: that model's, where it is at hand.
    """

    path: str
    vocabulary: Vocabulary | None
    max_length: int
    start: int | None
    seed: int = 0
    backend: Backend | None = None

    @property
    def end(self) -> int | None:
        """The end of a text; of tokenizers without one, what separates texts."""
        fast = tokenizer(self.path, self.vocabulary)
        found = fast.sep_token_id if fast.eos_token_id is None else fast.eos_token_id
        return None if found is None else int(found)

    @property
    def _encoder(self) -> Encoder:
        return encoder_of(self.backend) if self.backend else encoder(self.path, self.vocabulary)

    def inputs(self, *columns: pa.ChunkedArray, max_length: int | None = None) -> dict[str, pa.Array]:
        return _inputs(self._encoder(max_length or self.max_length, *columns))

    def aligned(self, *columns: pa.ChunkedArray) -> Aligned:
        return _aligned(*self._encoder.placed(self.max_length, *columns))

    def windows(self, stride: int, *columns: pa.ChunkedArray) -> tuple[Aligned, I64]:
        encoded, found, counts = self._encoder.windows(self.max_length, stride, *columns)
        return _aligned(encoded, found), counts

    def pieces(self, texts: pa.ChunkedArray) -> pa.ListArray:
        return self._encoder.pieces(texts)

    def chat(self, content: str) -> str:
        fast = tokenizer(self.path, self.vocabulary)
        if not fast.chat_template:
            raise UserError(
                f"the tokenizer of {self.path} has no chat template: write task.template out, with {{text}} in the "
                "place of the text"
            )
        template = fast.get_chat_template()
        said = [{"role": "user", "content": content}]
        template = _STOPPED + template if _CLOCK in template else template
        return str(fast.apply_chat_template(said, chat_template=template, tokenize=False, add_generation_prompt=True))


def _aligned(encoded: Encoded, found: list[Encoding]) -> Aligned:
    counts = [len(row) for row in found]
    places = np.array([place for row in found for place in row.offsets], np.int64).reshape(-1, 2)
    texts = [-1 if text is None else text for row in found for text in row.sequence_ids]
    return Aligned(
        inputs=_inputs(encoded),
        rows=np.repeat(np.arange(len(found)), counts),
        starts=places[:, 0],
        stops=places[:, 1],
        texts=np.array(texts, np.int64),
    )


def _inputs(encoded: Encoded) -> dict[str, pa.Array]:
    columns = {"input_ids": encoded.ids}
    return columns if encoded.types is None else columns | {"token_type_ids": encoded.types}
