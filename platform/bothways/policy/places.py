"""Labels that name places in a text: they move when the text is changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from bothways.text import Ints, TextBatch, moved, ragged, spans


class Places:
    """The places in a column of labels, list<struct<start, stop, …>> of N rows, in characters of each row's text.

    `keep`, a bool, may be among the fields: whether an augmentation shall spare the words of a place. Without it, it
    shall.
    """

    def __init__(self, labels: pa.ChunkedArray) -> None:
        lists = pa.concat_arrays(labels.chunks) if labels.num_chunks != 1 else labels.chunk(0)
        self._type = lists.type
        self._counts = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        self._firsts = np.cumsum(self._counts) - self._counts
        flat = lists.flatten()
        self._fields = {field.name: flat.field(field.name) for field in lists.type.value_type}
        keep = self._fields.get("keep")
        self._keep = np.ones(len(flat), dtype=bool) if keep is None else keep.to_numpy(zero_copy_only=False)
        self._starts, self._stops = (np.array(self._fields[name].to_numpy(), np.int64) for name in ("start", "stop"))

    def protect(self, batch: TextBatch, rows: Ints) -> TextBatch:
        """The batch, of `rows` as they are, with the words of the places protected that shall be spared."""
        counts = self._counts[rows]
        at = ragged(self._firsts[rows], counts)
        within = np.repeat(np.arange(rows.size), counts)[self._keep[at]]
        at = at[self._keep[at]]
        lengths = np.fromiter(map(len, batch.originals), dtype=np.int64, count=len(batch))
        begin = (np.cumsum(lengths + 1) - lengths)[within]  # codes[0] is no row's, and a separator follows each
        first = np.searchsorted(batch.stops[:, 1], begin + self._starts[at], side="right")
        behind = np.searchsorted(batch.starts[:, 1], begin + self._stops[at], side="left")
        return batch.protecting(spans(first, np.maximum(first, behind)))

    def follow(self, batch: TextBatch, rows: Ints) -> None:
        """Move the places of `rows` to where they are in `batch`, whose rows these are; -1 for what is gone."""
        counts = self._counts[rows]
        at = ragged(self._firsts[rows], counts)
        within = np.repeat(np.arange(rows.size), counts)
        self._starts[at], self._stops[at] = moved(batch, within, self._starts[at], self._stops[at])

    def column(self) -> pa.Array:
        """The labels with their places as they are now."""
        at = {"start": self._starts, "stop": self._stops}
        fields = [
            pa.array(at[field.name], field.type) if field.name in at else self._fields[field.name]
            for field in self._type.value_type
        ]
        structs = pa.StructArray.from_arrays(fields, fields=list(self._type.value_type))
        offsets = np.append(0, np.cumsum(self._counts)).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, structs, type=self._type)
