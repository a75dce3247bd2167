"""Words that lie close in a model's own input embeddings: what the model itself takes for much the same.

Only words that the tokenizer reads as one token: the mean of several sub-words says more of its parts than of the word.
Neighbours by distribution are also opposites and forms of one word. What WordNet calls an antonym is left out, with its
forms, and so are the word's own; in Chinese, a word that contains the other, or is written in other characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bothways.assets import resolve, root
from bothways.assets.files import build_once
from bothways.assets.fingerprint import fingerprint
from bothways.errors import UserError, one_line
from bothways.lexicons.table import SynonymTable
from bothways.lexicons.tables import antonyms, words_zh

F32 = npt.NDArray[np.float32]
_LAYOUT = 1  # raise it when what a table holds changes, and it is built again
_MOST = 10  # neighbours of a word
_LOOKED_AT = 40  # of which those are the nearest that may stand for it
_LEAST = 0.3  # cosine below which nothing is kept
_BLOCK = 1024
_WORDS = {"en": re.compile(r"[a-z]{3,}"), "zh": re.compile("[\u3400-\u9fff]{2,4}")}


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """`table`: words and their neighbours, the nearest first. `cosines`: float32, one for each of its candidates."""

    table: SynonymTable
    cosines: F32

    def above(self, least: float) -> SynonymTable:
        """The neighbours with a cosine of at least `least`."""
        near = np.asarray(self.cosines) >= np.float32(least)
        kept = np.concatenate([[0], np.cumsum(near)])
        return SynonymTable(
            words=self.table.words,
            offsets=kept[self.table.offsets].astype(np.int64),
            candidates=self.table.candidates[near],
        )


def input_embeddings(source: str) -> F32:
    """The input embeddings of a model, (V, H). Raises `UserError` when `source` holds none."""
    from transformers import AutoModel
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        weight = AutoModel.from_pretrained(str(resolve(source)), local_files_only=True).get_input_embeddings().weight
    except (OSError, ValueError) as error:
        raise UserError(f"model {source}: {one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    table: F32 = weight.detach().float().numpy()
    return table


@lru_cache(maxsize=8)
def neighbours(model: str, language: str) -> Neighbours:
    """Of the model `model` (as in a pipeline's `model.source`), built once into the cache and memory-mapped.

    A model is known by its files: one that was trained further has a table of its own. Raises `UserError` for a model
    that reads no word of the language as one token.
    """

    def build(work: Path) -> None:
        words, vectors = _words(model, language)
        if len(words) < 2:
            raise UserError(f"model {model} reads no words of language {language!r} as one token: use the thesaurus")
        table, cosines = _near(words, vectors, _REFUSED[language]())
        table.save(work)
        np.save(work / "cosines.npy", cosines, allow_pickle=False)

    folder = build_once(root() / "lexicons" / f"embeddings-{fingerprint(resolve(model))}-{language}-{_LAYOUT}", build)
    cosines = np.load(folder / "cosines.npy", mmap_mode="r", allow_pickle=False)
    return Neighbours(table=SynonymTable.load(folder), cosines=cosines)


def _words(model: str, language: str) -> tuple[list[str], F32]:
    """The words of the language that are one token, sorted, and their vectors: centred, of length 1."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(resolve(model)), local_files_only=True)
    decoder, plain = tokenizer.backend_tokenizer.decoder, tokenizer.convert_ids_to_tokens
    pieces = tokenizer.get_vocab()
    texts = {(decoder.decode([piece]) if decoder else piece).strip().lstrip("\u2581") for piece in pieces}
    words = sorted(filter(_WORDS[language].fullmatch, texts))
    if language == "zh":
        words = sorted(set(words) & words_zh())
    ids = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"] if words else []
    whole = [[i for i in row if plain(i) not in {"\u2581", "\u0120"}] for row in ids]
    single = [at for at, row in enumerate(whole) if len(row) == 1 and row[0] != tokenizer.unk_token_id]
    vectors = input_embeddings(model)[[whole[at][0] for at in single]] if single else np.zeros((0, 1), np.float32)
    vectors = vectors - vectors.mean(axis=0) if single else vectors
    return [words[at] for at in single], vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _near(words: list[str], vectors: F32, refused: Callable[[str, str], bool]) -> tuple[SynonymTable, F32]:
    """Each word's nearest. Cosines are kept to four digits: what an order of summation makes of the rest, a threshold
    must not see."""
    near: dict[str, list[str]] = {}
    found: list[float] = []
    for word, others, cosines in _nearest(words, vectors):
        kept = [(o, c) for o, c in zip(others, cosines, strict=True) if c >= _LEAST and not refused(word, o)][:_MOST]
        if kept:
            near[word] = [other for other, _ in kept]
            found += [cosine for _, cosine in kept]
    return SynonymTable.from_mapping(near), np.array(found, dtype=np.float32)  # words are sorted: so are the rows


def _nearest(words: list[str], vectors: F32) -> Iterator[tuple[str, list[str], list[float]]]:
    count = min(_LOOKED_AT, len(words) - 1)
    for start in range(0, len(words), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ vectors.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -1.0
        best = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        values = np.round(np.take_along_axis(cosines, best, axis=1), 4)
        order = np.lexsort((best, -values), axis=1)
        for row in rows.tolist():
            at = best[row, order[row]].tolist()
            yield words[start + row], [words[i] for i in at], values[row, order[row]].tolist()


def _refused_en() -> Callable[[str, str], bool]:
    """Forms of one word, told by their first letters, and whatever has those of an antonym."""
    table = antonyms()
    opposite: dict[str, set[str]] = {}

    def stem(word: str) -> str:
        return word[:4] if len(word) > 5 else word[:3]

    def refused(word: str, other: str) -> bool:
        if word not in opposite:
            opposite[word] = {stem(antonym) for antonym in table.of(word)}
        return word[:3] == other[:3] or bool(opposite[word] & {stem(other), other[:3]})

    return refused


def _refused_zh() -> Callable[[str, str], bool]:
    """A word that contains the other one, and words of another script: traditional and Japanese forms."""

    def simplified(word: str) -> bool:
        try:
            return bool(word.encode("gb2312"))
        except UnicodeEncodeError:
            return False

    return lambda word, other: word in other or other in word or simplified(word) != simplified(other)


_REFUSED: dict[str, Callable[[], Any]] = {"en": _refused_en, "zh": _refused_zh}
