"""Background noise and the order of sentences, on examples worked by hand and on hostile text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.config import Protect
from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.seeding import keys
from bothways.text import TextBatch
from tests.text.test_sentences import HOSTILE

EVERYTHING = InputContext(slot="s", protect=Protect(negators=False, numbers=False))
CHINESE = replace(EVERYTHING, language="zh")


def outcomes(name: str, text: str, context: InputContext = EVERYTHING, rows: int = 400, **knobs: Any) -> Counter[str]:
    """What rows of the same text become."""
    batch = context.read([text] * rows, keys(np.arange(rows)))
    return Counter(TRANSFORMS.get(name)(**knobs)(batch, context).texts())


@pytest.mark.parametrize(
    ("kind", "context", "looks"),
    [
        ("url", EVERYTHING, r"(https://t\.co/\w{8}|http://bit\.ly/\w{7}|www\.\w{6}\.com|https://youtu\.be/\w{11})"),
        ("url", CHINESE, r"(（http://t\.cn/\w{7}）|（b23\.tv/\w{6}）|（www\.\w{6}\.cn）|<http://t\.cn/\w{7}>)"),
        ("emoji", EVERYTHING, "[\U0001f300-\U0001f6ff]"),
        ("symbol", EVERYTHING, r"[^\w\s]+|__+"),
        ("markup", EVERYTHING, r"[<&*\[>][^ ]*|<br />"),
    ],
)
def test_noise_of_a_kind_looks_like_it(kind: str, context: InputContext, looks: str) -> None:
    for text in outcomes("background_noise", "word", context, p=1.0, kinds=(kind,)):
        gap = " " if context is EVERYTHING else " ?"
        assert re.fullmatch(f"({looks}){gap}word{gap}({looks})", text), text


def test_links_differ_and_noise_stands_at_the_rate_asked_for() -> None:
    assert len(outcomes("background_noise", "word", p=1.0, kinds=("url",))) > 395
    texts = outcomes("background_noise", "a b c d e f g h i", p=0.1, rows=4000, kinds=("emoji",)).elements()
    pieces = sum(len(text.split()) - 9 for text in texts) / (4000 * 10)  # nine words and the end
    assert abs(pieces - 0.1) < 5 * (0.1 * 0.9 / 40_000) ** 0.5


def test_noise_leaves_white_space_at_the_ends_where_it_was() -> None:
    for text in outcomes("background_noise", "  a b\n", p=0.6):
        assert text.startswith("  ") and text.endswith("\n") and not text.endswith(" \n")
    assert all("  " not in text for text in outcomes("background_noise", "这部电影。", CHINESE, p=0.6))


def test_nothing_comes_between_a_protected_word_and_what_it_is_said_of() -> None:
    context = replace(EVERYTHING, protect=Protect())
    for text in outcomes("background_noise", "it is not good for 3 days", context, p=0.8):
        assert "is not good" in text and "for 3 days" in text
    for text in outcomes("background_noise", "我不喜欢它", replace(CHINESE, protect=Protect()), p=0.8):
        assert "我不喜" in text


def test_permuted_sentences_move_whole_and_none_stays() -> None:
    found = outcomes("sentence_shuffle", " A b. C d!  E f?\n", p=1.0)
    assert set(found) == {" C d! E f?  A b.\n", " E f? A b.  C d!\n"}  # the two cycles of three; gaps stay in place
    assert abs(found[" C d! E f?  A b.\n"] - 200) < 5 * 10
    assert set(outcomes("sentence_shuffle", "好。你呢？走！", CHINESE, p=1.0)) == {"你呢？走！好。", "走！好。你呢？"}
    assert set(outcomes("sentence_shuffle", "One. Two.", p=0.3)) == {"One. Two.", "Two. One."}
    assert set(outcomes("sentence_shuffle", "One sentence only.", p=1.0)) == {"One sentence only."}


def test_a_quote_that_opens_behind_a_full_stop_goes_with_its_sentence() -> None:
    assert set(outcomes("sentence_shuffle", "他说。“你好。”", CHINESE, p=1.0)) == {"“你好。”他说。"}


def test_dropped_sentences_leave_one_with_a_word() -> None:
    assert set(outcomes("sentence_shuffle", "A b. C d! !!!", p=1.0, action="drop")) == {"A b.", "C d! !!!"}
    found = outcomes("sentence_shuffle", "Go. Be. Do.", p=0.5, action="drop")
    assert set(found) == {"Go. Be. Do.", "Go. Be.", "Go. Do.", "Be. Do.", "Go.", "Be.", "Do."}
    assert abs(found["Go. Be. Do."] - 50) < 5 * 7


def test_a_sentence_with_a_protected_word_is_not_dropped() -> None:
    context = replace(EVERYTHING, protect=Protect())
    found = outcomes("sentence_shuffle", "Nice set. It is not good. See you.", context, p=1.0, action="drop")
    assert set(found) == {"It is not good."}


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(HOSTILE, max_size=4), p=st.sampled_from([0.3, 1.0]))
def test_permuting_hostile_text_keeps_every_character(texts: list[str], p: float) -> None:
    after = _apply("sentence_shuffle", texts, p=p)
    for old, new in zip(texts, after, strict=True):
        lost, gained = Counter(old) - Counter(new), Counter(new) - Counter(old)
        assert not lost
        assert set(gained) <= {" "}  # where two words would otherwise have become one


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(HOSTILE, max_size=4), p=st.sampled_from([0.3, 1.0]))
def test_noise_and_deletion_keep_the_order_of_what_stays(texts: list[str], p: float) -> None:
    def is_within(part: str, whole: str) -> bool:
        rest = iter("".join(whole.split()))
        return all(character in rest for character in "".join(part.split()))

    assert all(map(is_within, texts, _apply("background_noise", texts, p=p)))
    assert all(map(is_within, _apply("sentence_shuffle", texts, p=p, action="drop"), texts))


def _apply(name: str, texts: list[str], **knobs: Any) -> list[str]:
    batch: TextBatch = TRANSFORMS.get(name)(**knobs)(EVERYTHING.read(texts, keys(np.arange(len(texts)))), EVERYTHING)
    return batch.texts()
