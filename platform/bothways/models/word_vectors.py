"""Vectors of whole words out of a model's input embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bothways import assets
from bothways.lexicons import input_embeddings
from bothways.tokenization import tokenizer


def input_vectors(source: str, words: Sequence[str]) -> npt.NDArray[np.float32]:
    """The mean of the embeddings of each word's sub-words, (n, d); zeros where one of them is unknown to the model.

    `source`: as in a pipeline's `model.source`. Raises `UserError` when it holds no model.
    """
    reads = tokenizer(str(assets.resolve(source)))
    table = input_embeddings(source)
    pieces = reads(list(words), add_special_tokens=False)["input_ids"] if len(words) else []
    vectors = np.zeros((len(words), table.shape[1]), dtype=np.float32)
    for row, ids in enumerate(pieces):
        if ids and reads.unk_token_id not in ids:
            vectors[row] = table[ids].mean(axis=0)
    return vectors
