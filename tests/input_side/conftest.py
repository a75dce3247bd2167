"""Texts and contexts shared by the tests of the input side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bothways.config import Protect
from bothways.input_side.examples import Examples
from bothways.input_side.statistics import Statistics
from bothways.input_side.transform import InputContext
from bothways.seeding import keys

WORDS = {
    "en": "the movie was a great surprise and its director tells one more story of love in an old city where people "
    "laugh , cry and remember what they wo n't forget . truly moving film , with good actors and bad jokes !",
    "zh": "这部 电影 的 导演 讲 了 又 个 关于 城市 和 爱情 的 故事 演员 好看 但是 结尾 有点 遗憾 观众 喜欢 不 没 "
    "， 。 。 ！ ？",
}
NEGATED = {
    "en": [
        "they do n't like this movie and it is not good",
        "I won't watch it again , never",
        "he cannot act without 3 scripts , nor can she",
        "It wo n't work ; nothing isn't broken in 2021 .",
        "Hardly a film . NO story , NOT even 1.5 stars",
    ],
    "zh": [
        "这部电影一点也不好看，浪费时间",
        "没有人喜欢它，也没什么可说的",
        "这绝非佳作，别去看，无聊！",
        "未能打动3个观众",
    ],
}


def sentences(language: str, n: int = 90) -> list[str]:
    """Seeded sentences of 1 to 30 words."""
    generator = np.random.default_rng(7)
    words, gap = WORDS[language].split(), " " if language == "en" else ""
    rows = [gap.join(generator.choice(words, size)) for size in generator.integers(1, 31, n)]
    return rows + NEGATED[language] + ["", " ", "!!!", "one"]


@pytest.fixture(scope="session", params=["en", "zh"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def texts(language: str) -> list[str]:
    return sentences(language)


@pytest.fixture(scope="session")
def context(language: str, texts: list[str]) -> InputContext:
    examples = Examples(texts, np.arange(len(texts)) % 2)
    statistics = replace(Statistics.of(texts), examples=examples)
    return InputContext(language=language, slot="augment/0/0", statistics=statistics, protect=Protect())


@pytest.fixture(scope="session")
def row_keys(texts: list[str]) -> np.ndarray:
    return keys(3, "row", np.arange(len(texts), dtype=np.uint64))
