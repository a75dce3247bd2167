"""Where sentences begin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.text import END, TextBatch, decoded
from bothways.text.sentences import sentences

HOSTILE = st.text(st.characters(codec=None), max_size=15) | st.text(
    "aB1'\"- .!?…\n。！？“”（）)不😀\u200f\u05d0\u0301\u200d\ud800\x00", max_size=25
)


def split(text: str, segmentation: str = "character") -> list[str]:
    """The sentences of a text, without the white space between them."""
    batch, firsts = sentences(TextBatch.from_texts(["a. b", text], segmentation=segmentation))  # type: ignore[arg-type]
    firsts = firsts[firsts >= batch.offsets[1]]
    lasts = np.append(firsts[1:], batch.offsets[2] - 1) - 1
    return [decoded(batch.codes[batch.starts[a, 1] : batch.stops[b, 1]]) for a, b in zip(firsts, lasts, strict=True)]


@pytest.mark.parametrize(
    "marked",
    [
        "A fine film. |But why? |It moves!",
        "Mr. J. Smith met Dr. No. |They left.",
        "See e.g. this. |I am. |So am I. |Right.",
        "It is 3.5 stars of 5. |Fine.",
        "the u.s. army won. it did",  # nothing says that a sentence begins
        "a film . |it is n't good ... but , well ! |yes .",  # tokenised text
        "“Good.” |“Bad.” |He said: ‘No!’ |Then left.",
        "She left (really.) |Then... nothing. |Or so…",
        "Wow!!! |😀 Next one… |Maybe.",
        "www.a.com?x=1 and b!c hold no end",
        "What ? ! . . . |Oh",
        "A title\n\n|the text is\nwrapped",
        "這很好。|他說：「不！」|然後走了……|我不知道？",
        "他说。|“你好。”|“再见！”|她答。",
        "“好。”，他说。|（真的！）|行",
        "评分 3.5 分；不错，推荐。|Very good! |值得。",
        "没有标点",
    ],
)
def test_sentences_end_where_a_reader_ends_them(marked: str) -> None:
    assert split(marked.replace("|", "")) == [part.rstrip() for part in marked.split("|")]


def test_words_of_jieba_are_cut_alike() -> None:
    pytest.importorskip("jieba")
    assert split("电影真好看！我很喜欢。", "word") == ["电影真好看！", "我很喜欢。"]


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(HOSTILE, max_size=5))
def test_every_row_has_sentences_and_keeps_its_text(texts: list[str]) -> None:
    batch, firsts = sentences(TextBatch.from_texts(texts))
    everything = batch._together(batch.starts, batch.stops, batch.kinds, batch.offsets) if texts else []
    assert everything == texts  # put together anew from the tokens that were cut
    assert set(batch.offsets[:-1].tolist()) <= set(firsts.tolist())
    assert (np.diff(firsts) > 0).all()
    assert not (batch.kinds[np.setdiff1d(firsts, batch.offsets[:-1])] == END).any()
    for row, text in enumerate(texts):  # a row's sentences do not depend on its neighbours
        alone, own = sentences(TextBatch.from_texts([text]))
        mine = firsts[(firsts >= batch.offsets[row]) & (firsts < batch.offsets[row + 1])] - batch.offsets[row]
        assert mine.tolist() == own.tolist()
        assert alone.sizes[0] == batch.sizes[row]
