"""From rows to batches: tokenisation as a picklable function, padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from bothways import policy
from bothways.config import Augment, InputSide, Language
from bothways.contracts import NO_LABEL, Batch, Beside
from bothways.data_config import SampleMixing
from bothways.planning import I64, as_views
from bothways.tokenization import Vocabulary, encoder

EVALUATION = -1
"""The epoch of rows that are evaluated or served: reconstruction only, no augmentation."""


def evaluation_views(rows: pa.Table) -> pa.Table:
    """The rows as views that are evaluated or served."""
    zeros = np.zeros(rows.num_rows, np.int64)
    return as_views(rows, zeros + EVALUATION, zeros)


def evaluation_side(side: InputSide) -> InputSide | None:
    """What of an input side applies to rows that are evaluated or served; None when that is nothing."""
    plain = {"augment": Augment(), "sample_mixing": SampleMixing()}
    return side.model_copy(update=plain) if side.reconstruct else None


@dataclass(frozen=True, kw_only=True)
class Encode:
    """`contracts.Encode`: views to token ids, through the input side. Picklable; the tokenizer travels as its path and
    the `vocabulary` that is kept of it (None: all).

    `side` None leaves the text as it is. `paired`: `pair` is read as the second segment.
    """

    tokenizer_path: str
    max_length: int
    paired: bool
    vocabulary: Vocabulary | None = None
    side: InputSide | None = None
    language: Language = "en"
    seed: int = 0
    statistics: policy.Statistics | None = None

    def __call__(self, views: pa.Table) -> pa.Table:
        """`input_ids` (list of int32), `token_type_ids` (pairs whose tokenizer has them), `label`, `is_copy`."""
        read = views
        if self.side is not None:
            read = policy.read(
                views, side=self.side, language=self.language, seed=self.seed, statistics=self.statistics
            )
        texts = [read[name] for name in (("text", "pair") if self.paired else ("text",))]
        encoded = encoder(self.tokenizer_path, self.vocabulary)(self.max_length, *texts)
        columns = {"input_ids": encoded.ids}
        if encoded.types is not None:
            columns["token_type_ids"] = encoded.types
        return pa.table(
            {**columns, "label": read["label"], "is_copy": pa.array(read["copy"].to_numpy() > 0)},
        )


def lengths(encoded: pa.Table) -> I64:
    """Tokens of each encoded row, (N,)."""
    counts = encoded["input_ids"].combine_chunks().value_lengths()
    return np.asarray(counts.to_numpy(zero_copy_only=False), np.int64)


def regroup(blocks: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Tables of exactly `size` rows from tables of any sizes, in order; the last one may be shorter."""
    waiting: list[pa.Table] = []
    held = 0
    for block in blocks:
        waiting.append(block)
        held += block.num_rows
        if held < size:
            continue
        joined = pa.concat_tables(waiting)
        whole = held - held % size
        yield from (joined.slice(start, size) for start in range(0, whole, size))
        waiting, held = [joined.slice(whole)], held - whole
    if held:
        yield pa.concat_tables(waiting)


def collate(rows: pa.Table, pad_id: int) -> Batch:
    """Encoded rows as a batch on the CPU, padded to the longest."""
    counts = lengths(rows)
    real = np.arange(counts.max(initial=0)) < counts[:, None]

    def padded(column: str, fill: int) -> torch.Tensor:
        out = np.full(real.shape, fill, np.int64)
        out[real] = rows[column].combine_chunks().flatten().to_numpy()
        return torch.from_numpy(out)

    inputs = {"input_ids": padded("input_ids", pad_id), "attention_mask": torch.from_numpy(real.astype(np.int64))}
    if "token_type_ids" in rows.column_names:
        inputs["token_type_ids"] = padded("token_type_ids", 0)
    return Batch(
        inputs=inputs,
        labels=torch.from_numpy(np.array(rows["label"].fill_null(NO_LABEL).to_numpy(), np.int64)),
        is_copy=torch.from_numpy(np.array(rows["is_copy"].to_numpy(), bool)),
    )


def collate_step(table: pa.Table, pad_id: int, beside: Sequence[Beside]) -> Batch:
    """The views of one step of a joined plan as a batch with what is `beside` it: see `with_beside`."""
    whole = collate(table, pad_id)
    rows = len(whole) // (1 + sum(kind.per_row * kind.views for kind in beside))
    found, start = {}, rows
    for kind in beside:
        size = rows * kind.per_row
        stop = start + size * kind.views
        found[kind] = tuple(whole.slice(at, at + size) for at in range(start, stop, size))
        start = stop
    return replace(whole.slice(0, rows), beside=found)
