"""Text written by language models, causal or sequence to sequence, such that a row's result is its own affair.

A matrix product adds up in an order that depends on its shape, and so do its last bits. Hence every forward pass has
`ROWS` rows, where there are fewer the last one is repeated, and inputs are padded to a multiple of `PAD` tokens: all
shapes follow from a row's own length. Rows of one padded length go together. Within a product of given shape each row
is added up alike, wherever it stands and whatever stands beside it, and padding weighs exactly 0 in attention. What is
left to differ is another kind of device or version of torch, whose last bits may break a near-tie otherwise: both are
part of a result's name.

Sampling is by the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014): argmax of score / temperature + noise is a draw
from the softmax. The noise of a token depends on the row's key, the token's place and the token; no generator is asked.
(Rounding the scores first would only move the near-ties.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bothways.assets import resolve
from bothways.assets.fingerprint import fingerprint
from bothways.errors import UserError, one_line
from bothways.input_side.generated import Written, results
from bothways.lazy import torch
from bothways.seeding import F64, U64, keys

ROWS = 8
"""Rows of every forward pass. More would suit a GPU better; but each padded length has a pass that is not full."""
PAD = 32
"""Inputs are padded to a multiple of so many tokens."""
_LONGEST = 1024  # tokens of an input, where the model itself knows no limit
_KEPT_SETTINGS = (  # of a checkpoint's generation config: what its texts are like, not how they are searched for
    *("bos_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "no_repeat_ngram_size", "repetition_penalty"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`temperature`: 0 takes the likeliest token, which no key can change. `top_k`, `top_p`: what is drawn from.
    `new_tokens`: at most so many for each token of the padded input, and so many `more`. `stop`: a text that ends it.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    new_tokens: float = 2.0
    more: int = 0
    stop: str = ""


def write(source: str, inputs: Sequence[str], row_keys: U64, how: Settings) -> list[Written]:
    """What the model of `source` writes for each input, remembered in memory and in the cache folder.

    An input longer than the model can read gets an empty text. Raises `UserError` when `source` holds no such model.
    """
    if not inputs:
        return []
    path = str(resolve(source))
    model = fingerprint(resolve(source))
    about = [asdict(how), _device(), torch.__version__]
    marks = row_keys.tolist() if how.temperature > 0 else [0] * len(inputs)
    names = [
        hashlib.sha256(json.dumps([*about, text, mark]).encode()).hexdigest()[:32]
        for text, mark in zip(inputs, marks, strict=True)
    ]
    known = results(model)
    found = known.get(names)
    missing = {name: row for row, name in enumerate(names) if name not in found}
    if missing:
        rows = list(missing.values())
        written = language_model(path, model).write([inputs[i] for i in rows], row_keys[rows], how)
        new = dict(zip(missing, written, strict=True))
        known.put(new)
        found |= new
    return [found[name] for name in names]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=4)
def language_model(path: str, version: str = "") -> LanguageModel:
    """The model of a folder, loaded once per process. `version`: its fingerprint. Raises `UserError`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        paired = bool(AutoConfig.from_pretrained(path, local_files_only=True).is_encoder_decoder)
        kind: Any = AutoModelForSeq2SeqLM if paired else AutoModelForCausalLM
        module = kind.from_pretrained(path, local_files_only=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no model that writes text: {one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    return LanguageModel(module.eval().requires_grad_(False).to(_device()), tokenizer, paired)


class LanguageModel:
    """A checkpoint with its tokenizer. `paired`: sequence to sequence."""

    def __init__(self, module: Any, tokenizer: Any, paired: bool) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.paired = paired
        ends = module.generation_config.eos_token_id
        own = [] if ends is None else ends if isinstance(ends, list) else [ends]
        self._ends = sorted({*own, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})
        self._stops = {"": self._ends}
        pad = tokenizer.pad_token_id
        self._pad = int(pad if pad is not None else self._ends[0] if self._ends else 0)

    @cached_property
    def limit(self) -> int:
        """Tokens of an input, at most."""
        places = getattr(self.module.config, "max_position_embeddings", None)
        known = [n for n in (places, self.tokenizer.model_max_length) if isinstance(n, int) and 0 < n < 1 << 20]
        return min([*known, _LONGEST])

    def _ending(self, stop: str) -> list[int]:
        """Tokens after which nothing more is wanted."""
        if stop not in self._stops:
            decode: Callable[[list[int]], str] = self.tokenizer.backend_tokenizer.decode
            self._stops[stop] = sorted({*self._ends, *(i for i in range(len(self.tokenizer)) if stop in decode([i]))})
        return self._stops[stop]

    def write(self, inputs: Sequence[str], row_keys: U64, how: Settings) -> list[Written]:
        """As the module's `write`, nothing remembered."""
        readable = [text.encode("utf-8", "replace").decode() for text in inputs]  # no tokenizer reads half a surrogate
        ids: list[list[int]] = self.tokenizer(readable)["input_ids"]
        lengths = np.array([PAD * max(1, -(-len(row) // PAD)) for row in ids])
        written = [Written("", False)] * len(inputs)
        for length in np.unique(lengths).tolist():
            new = round(length * how.new_tokens) + how.more
            if length + (0 if self.paired else new) > self.limit:
                continue
            rows = np.flatnonzero(lengths == length)
            for start in range(0, rows.size, ROWS):
                some = rows[start : start + ROWS]
                full = np.append(some, np.full(ROWS - some.size, some[-1]))
                texts = self._written([ids[i] for i in full.tolist()], length, row_keys[full], how, new)
                for row, text in zip(some.tolist(), texts, strict=False):
                    written[row] = text
        return written

    def _written(self, ids: list[list[int]], length: int, row_keys: U64, how: Settings, new: int) -> list[Written]:
        """Of `ROWS` inputs, padded to `length`: on the left where the model goes on with them."""
        from transformers import GenerationConfig

        table = np.full((ROWS, length), self._pad, dtype=np.int64)
        mask = np.zeros_like(table)
        for row, tokens in enumerate(ids):
            place = slice(0, len(tokens)) if self.paired else slice(length - len(tokens), length)
            table[row, place], mask[row, place] = tokens, 1
        ends = self._ending(how.stop)
        own = self.module.generation_config
        settings = {name: getattr(own, name, None) for name in _KEPT_SETTINGS}
        with torch.inference_mode():
            output = self.module.generate(
                input_ids=torch.from_numpy(table).to(self.module.device),
                attention_mask=torch.from_numpy(mask).to(self.module.device),
                generation_config=GenerationConfig(
                    **{name: value for name, value in settings.items() if value is not None},
                    max_new_tokens=new,
                    eos_token_id=ends or None,
                    pad_token_id=self._pad,
                ),
                logits_processor=[_Draw(row_keys, how)] if how.temperature > 0 else [],
            )
        tokens = output.cpu().numpy()[:, 1 if self.paired else length :]
        return [self._text(row, set(ends), how.stop) for row in tokens]

    def _text(self, tokens: npt.NDArray[np.int64], ends: set[int], stop: str) -> Written:
        at = next((place for place, token in enumerate(tokens.tolist()) if token in ends), -1)
        kept = tokens if at < 0 else tokens[: at + 1]
        text = self.tokenizer.decode(kept.tolist(), skip_special_tokens=True)
        return Written(text.partition(stop)[0] if stop else text, at >= 0)


class _Draw:
    """A step of sampling: from the scores (N, V), all but one token ruled out for each row."""

    def __init__(self, row_keys: U64, how: Settings) -> None:
        self._keys = row_keys[:, None]
        self._how = how
        self._place = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        how = self._how
        top = torch.topk(scores, min(how.top_k, scores.shape[1]), dim=1)
        values = top.values.double().cpu().numpy() / how.temperature
        tokens = top.indices.cpu().numpy()
        chosen = (values + self._noise(tokens) + _nucleus(values, how.top_p)).argmax(axis=1)
        self._place += 1
        picked = torch.from_numpy(np.take_along_axis(tokens, chosen[:, None], axis=1)).to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, picked, 0.0)

    def _noise(self, tokens: npt.NDArray[np.int64]) -> F64:
        """Gumbel noise, (N, k)."""
        bits = keys(self._keys, self._place, tokens) >> np.uint64(11)
        return np.asarray(-np.log(-np.log((bits.astype(np.float64) + 0.5) * 2.0**-53)))


def _nucleus(values: F64, top_p: float) -> F64:
    """0 for the likeliest tokens that make up `top_p` of the probability, minus infinity for the others, (N, k)."""
    weights = np.exp(values - values[:, :1])  # in falling order
    shares = weights / weights.sum(axis=1, keepdims=True)
    return np.where(np.cumsum(shares, axis=1) - shares < top_p, 0.0, -np.inf)


def degenerate(text: str, least: int, most: int) -> bool:
    """Whether a text is shorter or longer (in characters) than it may be, or goes round in circles."""
    if not max(1, least) <= len(text) <= most:
        return True
    words = text.split() if " " in text.strip() else list(text)
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return len(threes) > 4 and len(set(threes)) < 0.6 * len(threes)
