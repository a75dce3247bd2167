"""Words by hash: both ways to find a hash agree, wherever in a text a word stands."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.input_side.lookup import HashIndex, token_hashes, word_hashes
from bothways.text import TextBatch

LONG = "the film's 12 don'ts, " * 9000  # 200,000 characters: three stretches and more
WORD = "x" * 70_000  # longer than a stretch


@pytest.mark.parametrize(
    "texts",
    [
        ["a fine film", "", "don't", "no no"],
        [LONG, "and on"],
        [WORD, f"a {WORD} b"],
        ["这部电影 iPhone14 也不好看！", "影" * 70_000],
        ["😀 x 𠀀b " * 20_000],
    ],
    ids=["short", "long", "a long word", "Chinese", "beyond the basic plane"],
)
def test_hashes_of_a_whole_text_are_those_of_its_words(texts: list[str]) -> None:
    batch = TextBatch.from_texts(texts)
    tokens = np.flatnonzero(batch.is_word)
    for asked in (tokens, tokens[::3], tokens[:0]):
        assert np.array_equal(token_hashes(batch, asked), word_hashes(*batch.words(asked)))


def test_words_that_were_put_in_later_are_hashed_too() -> None:
    batch = TextBatch.from_texts(["a fine film"])
    batch = batch.replaced(np.array([1]), np.frombuffer(b"dull", np.uint8), np.array([4]))
    assert token_hashes(batch, np.array([1])) == word_hashes(np.frombuffer(b"dull", np.uint8), np.array([4]))


def test_a_full_table_finds_all_its_words_and_no_other() -> None:
    batch = TextBatch.from_texts([" ".join(f"w{number}" for number in range(3000))])
    hashes = token_hashes(batch, np.arange(3000))
    index = HashIndex.of(hashes[:2000])
    assert index.find(hashes).tolist() == [*range(2000), *[-1] * 1000]
