"""Vectors of whole words out of a model's input embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import AutoModel
from transformers.utils import logging

from bothways import assets
from bothways.errors import UserError, one_line
from bothways.tokenization import tokenizer


def input_vectors(source: str, words: Sequence[str]) -> npt.NDArray[np.float32]:
    """The mean of the embeddings of each word's sub-words, (n, d); zeros where one of them is unknown to the model.

    `source`: as in a pipeline's `model.source`. Raises `UserError` when it holds no model.
    """
    path = str(assets.resolve(source))
    reads = tokenizer(path)
    logging.disable_progress_bar()
    try:
        table = AutoModel.from_pretrained(path, local_files_only=True).get_input_embeddings().weight.detach().numpy()
    except (OSError, ValueError) as error:
        raise UserError(f"model {source}: {one_line(error)}") from error
    finally:
        logging.enable_progress_bar()
    pieces = reads(list(words), add_special_tokens=False)["input_ids"] if len(words) else []
    vectors = np.zeros((len(words), table.shape[1]), dtype=np.float32)
    for row, ids in enumerate(pieces):
        if ids and reads.unk_token_id not in ids:
            vectors[row] = table[ids].mean(axis=0)
    return vectors
