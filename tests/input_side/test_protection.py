"""Which words are protected."""

from __future__ import annotations

import pytest

from bothways.config import Protect
from bothways.input_side.protection import protect
from bothways.text import Segmentation, TextBatch


def protected(text: str, segmentation: Segmentation = "character", **what: object) -> list[str]:
    batch = protect(TextBatch.from_texts(["other words", text], segmentation=segmentation), Protect(**what))  # type: ignore[arg-type]
    tokens = [w for row in batch.tokens() for w in [*row, ""]]
    return [w for w, kept in zip(tokens, batch.protected, strict=True) if kept]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("they do n't know", ["n't"]),
        ("don't DON'T can’t wo n't won't", ["don't", "DON'T", "can’t", "n't", "won't"]),
        ("Not a note , nothing noted , hardly", ["Not", "nothing", "hardly"]),
        ("in 1999 or 1.5 of the 90s , covid19", ["1999", "1.5", "90s", "covid19"]),
        ("这部电影一点也不好看，没有 iPhone", ["一", "不", "没"]),
        ("café 不 not", ["不", "not"]),
        ("ant nt no- -no", ["nt", "no", "no"]),
    ],
)
def test_negators_and_numbers_are_protected(text: str, expected: list[str]) -> None:
    assert protected(text) == expected


def test_a_chinese_word_that_holds_a_negator_is_protected() -> None:
    assert protected("没有人知道", "word") == ["没有"]


def test_each_protection_can_be_switched_off() -> None:
    assert protected("not 7", negators=False) == ["7"]
    assert protected("not 7", numbers=False) == ["not"]
    assert protected("not 7", negators=False, numbers=False) == []


def test_listed_words_and_phrases_are_protected() -> None:
    assert protected("I love New york , newer", words=("new york", "LOVE")) == ["love", "New", "york"]
    assert protected("我爱苹果手机", words=("苹果",)) == ["苹", "果"]
    assert protected("C++ is fun", words=("C++",)) == ["C", "++"]
