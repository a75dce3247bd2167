"""A table of words and what they become, read from a file of the user's and applied to whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bothways.errors import UserError
from bothways.input_side.lookup import HashIndex, Matches, fold, longest_matches, word_hashes
from bothways.text import END, IDEOGRAPH, PUNCTUATION, Bools, Codes, Ints, TextBatch, encoded, ragged


@dataclass(frozen=True, eq=False)
class WordMap:
    """n entries. `codes`, `spelling` (n + 1,): the code points of what words become. `plain` (n,): whether that is one
    word, or Chinese. `longest`: tokens of the longest entry, read character by character."""

    index: HashIndex
    codes: Codes
    spelling: Ints
    plain: Bools
    longest: int

    @classmethod
    def of(cls, sources: list[str], targets: list[str]) -> WordMap:
        """`sources`: words, or words in a row; found in any case."""
        keys, lengths = _spelled(TextBatch.from_texts(sources))
        sizes = np.array([len(target) for target in targets], dtype=np.int64)
        batch = TextBatch.from_texts(targets)
        simple = batch.kinds == IDEOGRAPH
        simple |= batch.kinds == END
        return cls(
            index=HashIndex.of(word_hashes(fold(keys), lengths)),
            codes=encoded("".join(targets)),
            spelling=np.append(0, np.cumsum(sizes)),
            plain=(batch.sizes == 2) | (batch.per_row(~simple) == 0),
            longest=int(TextBatch.from_texts(sources).sizes.max(initial=2)) - 1,
        )

    def match(self, batch: TextBatch) -> Matches:
        """The entries that occur in a batch, in words that are free; the longest, none overlapping."""
        joined = batch.free & ((batch.kinds != IDEOGRAPH) | (batch.starts[:, 0] == batch.stops[:, 0]))
        return longest_matches(self.index, batch, np.flatnonzero(batch.free), joined, self.longest)

    def spelled(self, numbers: Ints) -> tuple[Codes, Ints]:
        """The code points of what these entries become, one after the other, and their lengths."""
        lengths = self.spelling[numbers + 1] - self.spelling[numbers]
        return self.codes[ragged(self.spelling[numbers], lengths)], lengths


def word_map(file: str) -> WordMap:
    """The table of `source<TAB>target` lines; further columns, empty lines and lines that begin with # are left out.

    Read once per process, and again when the file has changed. Raises `UserError` naming the line that is wrong.
    """
    path = Path(file).expanduser()
    try:
        about = path.stat()
    except OSError as error:
        raise UserError(f"lexicon_map: {file}: {error.strerror}; give the path of a TSV of source<TAB>target") from None
    return _read(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> WordMap:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise UserError(f"lexicon_map: {path} cannot be read: {reason}") from None
    entries: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        source, *rest = (field.strip() for field in line.split("\t"))
        if not source or not rest or not rest[0]:
            raise UserError(f"lexicon_map: {path}:{number}: {line[:60]!r} is not source<TAB>target")
        key, target = " ".join(source.lower().split()), rest[0]
        if entries.setdefault(key, (number, target))[1] != target:
            raise UserError(
                f"lexicon_map: {path}:{number}: {source!r} becomes something else on line {entries[key][0]}"
            )
    if not entries:
        raise UserError(f"lexicon_map: {path} has no line of source<TAB>target")
    _refuse_marks(path, entries)
    return WordMap.of(list(entries), [target for _, target in entries.values()])


def _refuse_marks(path: Path, entries: dict[str, tuple[int, str]]) -> None:
    """Sources are looked up among words: one with punctuation in it would never be found."""
    batch = TextBatch.from_texts(list(entries))
    marks = np.flatnonzero(batch.per_row(batch.kinds == PUNCTUATION))
    if marks.size:
        source, (number, _) = list(entries.items())[marks[0]]
        raise UserError(f"lexicon_map: {path}:{number}: {source!r} has punctuation: a source is one or more words")


def _spelled(batch: TextBatch) -> tuple[Codes, Ints]:
    """The words of each row as if they were one, and its length."""
    tokens = np.flatnonzero(batch.is_word)
    codes, lengths = batch.words(tokens)
    return codes, np.bincount(batch.rows_of(tokens), lengths, len(batch)).astype(np.int64)
