"""A masked language model for whole batches: what could stand where words are masked.

What a row gets must not depend on the rows around it, and products of matrices of another shape may differ in their
last bits. So matrices have few fixed shapes: texts are padded to one of `LENGTHS`, a pass through the body always holds
as many texts of a length, one through the head always as many positions; what is missing is filled up and thrown away.
On one kind of machine a row then becomes the same in any batch, to the byte. Another machine may round otherwise, and a
word come out differently where two candidates are less than that apart, about once in a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bothways import assets
from bothways.config import Protect
from bothways.errors import UserError, one_line
from bothways.input_side.language_modelling import head_of
from bothways.input_side.protection import protect
from bothways.lazy import torch
from bothways.text import IDEOGRAPH, LETTER, Bools, Ints, TextBatch, ragged

LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TOKENS = {"cpu": 512, "cuda": 16384}
"""In a pass through the body."""
POSITIONS = 64
"""In a pass through the head."""
_SINGLE = frozenset("aiAI")
"""Single letters that are words."""
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Candidates:
    """C pieces of one kind that are whole words: `ids`, int64 (C,), `texts`, and where a text in lower case stands."""

    ids: Ints
    texts: tuple[str, ...]
    at: dict[str, list[int]]


@dataclass(frozen=True, eq=False)
class MaskedLm:
    """A model with its tokenizer, as one process has it."""

    model: Any
    fast: Any
    backend: Any
    device: Any

    @property
    def mask_id(self) -> int:
        return int(self.fast.mask_token_id)

    def encoded(self, texts: Sequence[str]) -> list[Any]:
        """Each text's ids, special tokens included, with the characters that each stands for; what the model has no
        room for is cut."""
        return list(self.backend.encode_batch([text.translate(_SURROGATES) for text in texts]))

    def hidden(self, rows: Sequence[Ints], at: Sequence[Ints]) -> Any:
        """The hidden states of N rows of ids at the positions `at` of each, row after row, (M, H)."""
        buckets = np.searchsorted(LENGTHS, [len(row) for row in rows])
        parts, order = [], []
        for number in np.unique(buckets).tolist():
            members = np.flatnonzero(buckets == number)
            size = max(1, TOKENS[self.device.type] // LENGTHS[number])
            for start in range(0, len(members), size):
                some = members[start : start + size].tolist()
                states = self._pass([rows[row] for row in some], size, LENGTHS[number])
                places = np.repeat(np.arange(len(some)), [len(at[row]) for row in some])
                parts.append(states[places, np.concatenate([at[row] for row in some])])
                order += some
        counts = np.array([len(places) for places in at])
        begins = np.empty(len(rows), dtype=np.int64)
        begins[order] = np.cumsum(counts[order]) - counts[order]
        return torch.cat(parts)[torch.from_numpy(ragged(begins, counts)).to(self.device)]

    def _pass(self, rows: Sequence[Ints], size: int, width: int) -> Any:
        """Hidden states (size, width, H) of up to `size` rows of up to `width` ids."""
        ids = np.full((size, width), self.fast.pad_token_id or 0, dtype=np.int64)
        real = np.zeros((size, width), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)], real[place, : len(row)] = row, 1
        ids[len(rows) :], real[len(rows) :] = ids[0], real[0]
        inputs = {"input_ids": ids, "attention_mask": real}
        with torch.inference_mode():
            return self.model.base_model(
                **{name: torch.from_numpy(values).to(self.device) for name, values in inputs.items()}
            ).last_hidden_state

    def best(self, hidden: Any, columns: Ints, refused: Sequence[Sequence[int]], count: int) -> tuple[F32, Ints]:
        """For M positions, the `count` likeliest of the C ids `columns` (0: all): their logits and places among these,
        (M, K) each. `refused`: the places that do not come into question for a position; their logit is -inf."""
        values, places = [], []
        only = torch.from_numpy(columns).to(self.device)
        kept = min(count or len(columns), len(columns))
        for start in range(0, len(hidden), POSITIONS):
            block = hidden[start : start + POSITIONS]
            with torch.inference_mode():
                full = torch.cat([block, block[:1].expand(POSITIONS - len(block), -1)])
                logits = head_of(self.model, full)[: len(block), only].float()
                for row, out in enumerate(refused[start : start + POSITIONS]):
                    logits[row, list(out)] = -torch.inf
                top = logits.topk(kept, dim=1)
            values.append(top.values.cpu().numpy())
            places.append(top.indices.cpu().numpy())
        return np.concatenate(values), np.concatenate(places)


@lru_cache(maxsize=2)
def masked_lm(source: str) -> MaskedLm:
    """The model of `source`, loaded once per process, on its GPU if there is one. Raises `UserError` when it has no
    masked-LM head, no fast tokenizer or no mask token."""
    from tokenizers import Tokenizer
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    path = str(assets.resolve(source))
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        fast = AutoTokenizer.from_pretrained(path, local_files_only=True)
        with torch.random.fork_rng(devices=[]):
            model, info = AutoModelForMaskedLM.from_pretrained(
                path, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise UserError(f"contextual_substitution: model {source}: {one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    if info["missing_keys"]:
        raise UserError(
            f"contextual_substitution: {source} has no masked-LM head; `bothways prepare PIPELINE --out DIR` trains "
            "one on a pipeline's texts: then give DIR as `model`"
        )
    if not fast.is_fast or fast.mask_token_id is None:
        raise UserError(f"contextual_substitution: {source} has no fast tokenizer with a mask token")
    backend = Tokenizer.from_str(fast.backend_tokenizer.to_str())
    backend.no_padding()
    positions = int(getattr(model.config, "max_position_embeddings", LENGTHS[-1]))
    padding = model.config.pad_token_id or -1  # RoBERTa's positions begin behind this number
    backend.enable_truncation(max(length for length in LENGTHS if length <= positions - padding - 1))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return MaskedLm(model=model.eval().to(device), fast=fast, backend=backend, device=device)


@lru_cache(maxsize=8)
def candidates(source: str, kind: int, what: Protect) -> Candidates:
    """The pieces that words of a kind (`LETTER`, `IDEOGRAPH`) may become: whole words, and none that is protected.

    No word becomes a negator where negators are protected, and no number where numbers are. Raises `UserError` when
    there are fewer than two.
    """
    texts, begins = _spelt(masked_lm(source).fast)
    wanted = [
        number
        for number, text in enumerate(texts)
        if text.isalpha() and (kind == IDEOGRAPH or (begins[number] and (len(text) > 1 or text in _SINGLE)))
    ]
    batch = protect(TextBatch.from_texts([texts[number] for number in wanted]), what)
    of_kind = batch.per_row(batch.is_word & (batch.kinds != kind)) == 0
    single = of_kind & (batch.per_row(batch.is_word) == 1 if kind == LETTER else True)
    fits = single & (batch.per_row(batch.protected) == 0)
    found = [number for number, fit in zip(wanted, fits.tolist(), strict=True) if fit]
    if len(found) < 2:
        raise UserError(f"contextual_substitution: {source} has no words of the data's script")
    at: dict[str, list[int]] = {}
    for place, number in enumerate(found):
        at.setdefault(texts[number].lower(), []).append(place)
    return Candidates(np.array(found, dtype=np.int64), tuple(texts[number] for number in found), at)


def _spelt(fast: Any) -> tuple[list[str], Bools]:
    """The text of every id, empty for special tokens, and whether it begins a word.

    A beginning is marked (▁, Ġ) by tokenizers that keep spaces, and what goes on (##) by those of BERT's kind.
    """
    pieces: list[str] = fast.convert_ids_to_tokens(list(range(len(fast))))
    special = set(fast.all_special_ids)
    pieces = ["" if number in special or piece is None else piece for number, piece in enumerate(pieces)]
    mark = next((mark for mark in "▁Ġ" if any(piece.startswith(mark) for piece in pieces)), "")
    if not mark:
        begins = np.array([not piece.startswith("##") for piece in pieces])
        return pieces, begins
    begins = np.array([piece.startswith(mark) for piece in pieces])
    if mark == "Ġ":  # bytes in disguise
        pieces = [fast.convert_tokens_to_string([piece]).strip() if piece else "" for piece in pieces]
    return [piece.removeprefix(mark) for piece in pieces], begins
