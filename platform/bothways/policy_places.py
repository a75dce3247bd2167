"""Labels that name places in a text: they move when the text is changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from bothways.text import Ints, TextBatch, moved, ragged


class Places:
    """The places in a column of labels, list<struct<start, stop, …>> of N rows, in characters of each row's text."""

    def __init__(self, labels: pa.ChunkedArray) -> None:
        lists = pa.concat_arrays(labels.chunks) if labels.num_chunks != 1 else labels.chunk(0)
        self._type = lists.type
        self._counts = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        self._firsts = np.cumsum(self._counts) - self._counts
        flat = lists.flatten()
        self._fields = {field.name: flat.field(field.name) for field in lists.type.value_type}
        self._starts, self._stops = (np.array(self._fields[name].to_numpy(), np.int64) for name in ("start", "stop"))

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
