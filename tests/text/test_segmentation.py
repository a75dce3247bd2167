"""Segmentation and detokenisation: what was not changed comes back exactly, and edits keep sensible gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.errors import UserError
from bothways.text import PUNCTUATION, TextBatch, encoded, kinds_of

HOSTILE = [
    "",
    " ",
    "\n\t",
    "\ud83d lone \ude00 surrogates",
    "nul \0 in\0side",
    "👩‍🚀 👍🏽 ❤️ 🇨🇳🇺🇸 1️⃣",
    "e\u0301a\u0301 \u0301 x",
    "שלום עולם مرحبا بالعالم",
    "हिन्दी में लिखा",
    "... !!! ?? -- `` ''",
    "这部电影 iPhone14 也不好看，浪费时间！\u3000完",
    "字\U000e0100字\u200d字",
    "\u200d\ufe0f",
    "a\u2028b\u0085c\x1cd",
    "x" * 100_000,
]
ANY_TEXT = st.text(st.characters(codec=None), max_size=40) | st.text("ab1'-., 不好😀\u0301\u200d\ud800\n", max_size=20)


def rebuilt(texts: list[str]) -> list[str]:
    """The texts put together from their pieces, not handed back as they came."""
    batch = TextBatch.from_texts(texts)
    return replace(batch, changed=np.ones(len(texts), dtype=bool)).texts()


def words(text: str) -> list[str]:
    return TextBatch.from_texts([text]).tokens()[0]


def test_hostile_text_is_put_together_exactly() -> None:
    assert rebuilt(HOSTILE) == HOSTILE


@settings(max_examples=120, deadline=None)
@given(st.lists(ANY_TEXT, max_size=6))
def test_any_text_is_put_together_exactly(texts: list[str]) -> None:
    assert rebuilt(texts) == texts


@settings(max_examples=80, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=6))
def test_a_row_is_cut_the_same_alone_and_among_others(texts: list[str]) -> None:
    assert TextBatch.from_texts(texts).tokens() == [words(text) for text in texts]


def test_unchanged_rows_are_the_very_strings_that_came_in() -> None:
    texts = ["some text", "这部电影"]
    assert all(a is b for a, b in zip(TextBatch.from_texts(texts).texts(), texts, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("they wo n't sit still", ["they", "wo", "n't", "sit", "still"]),
        ("don't can't it’s", ["don't", "can't", "it’s"]),
        ("polanski 's best , really", ["polanski", "'s", "best", ",", "really"]),
        ("1.2.3 costs 3,000.50 at 10:30", ["1.2.3", "costs", "3,000.50", "at", "10:30"]),
        ("re-imagining, be-all-end-all.", ["re-imagining", ",", "be-all-end-all", "."]),
        ("'quoted' words: yes/no", ["'", "quoted", "'", "words", ":", "yes", "/", "no"]),
        ("wait... what?!", ["wait", "...", "what", "?!"]),
        ("电影iPhone14好看", ["电", "影", "iPhone14", "好", "看"]),
        ("👩‍🚀👍🏽 ok 🇨🇳", ["👩‍🚀", "👍🏽", "ok", "🇨🇳"]),
        ("cafe\u0301 au lait", ["cafe\u0301", "au", "lait"]),
    ],
)
def test_words_are_what_a_reader_calls_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_chinese_words_are_found_by_jieba() -> None:
    batch = TextBatch.from_texts(["这部电影 good 也不好看", "plain english", ""], segmentation="word")
    assert batch.tokens() == [["这部", "电影", "good", "也", "不", "好看"], ["plain", "english"], []]


def test_without_jieba_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jieba", None)
    with pytest.raises(UserError, match=r"bothways\[zh\]"):
        TextBatch.from_texts(["电影"], segmentation="word")


def dropping(text: str, *which: int) -> str:
    batch = TextBatch.from_texts([text])
    mask = np.zeros(batch.kinds.size, dtype=bool)
    mask[list(which)] = True
    return batch.without(mask).texts()[0]


def test_a_dropped_word_takes_the_gap_before_it_along() -> None:
    assert dropping("a big  red dog .", 1) == "a  red dog ."
    assert dropping("a big red dog .", 1, 2) == "a dog ."
    assert dropping("a big red dog .", 3) == "a big red ."


def test_what_begins_a_row_takes_over_its_leading_space() -> None:
    assert dropping("a big dog", 0) == "big dog"
    assert dropping("  a big dog \n", 0, 1) == "  dog \n"


def test_chinese_closes_up_where_a_character_was_dropped() -> None:
    assert dropping("这部电影", 1) == "这电影"


def test_two_words_never_become_one() -> None:
    assert dropping("love你too", 1) == "love too"
    assert dropping("😀😀x", 0) == "😀x"


def test_two_numbers_or_words_never_become_one_around_a_mark() -> None:
    assert dropping("是26号.12天了", 2, 5) == "是26 .12了"
    assert dropping("适合1岁-2岁", 3) == "适合1 -2岁"
    assert dropping("看到4个,5岁", 3) == "看到4 ,5岁"
    assert dropping("4.第2天", 2) == "4. 2天"
    assert dropping("很好看吧,a", 2, 3) == "很好,a"
    assert dropping("ok吧,a", 1) == "ok,a"  # a comma joins numbers only
    batch = TextBatch.from_texts(["4.用不惯vista"])
    assert batch.swapped(np.array([2]), np.array([5])).texts() == ["4. vista不惯用"]
    assert rebuilt(["1.2.3 a-b yes/no -x 4.用 3,000 我4.用"]) == ["1.2.3 a-b yes/no -x 4.用 3,000 我4.用"]


def inserting(text: str, before: list[int], new: list[str]) -> str:
    batch = TextBatch.from_texts([text])
    codes, lengths = encoded("".join(new)), np.array([len(w) for w in new])
    return batch.inserted(np.array(before), codes, lengths, kinds_of(codes, lengths)).texts()[0]


def test_an_inserted_word_is_followed_by_a_space_where_the_script_has_spaces() -> None:
    assert inserting("a dog", [0], ["big"]) == "big a dog"
    assert inserting("a dog", [1, 1], ["big", "red"]) == "a big red dog"
    assert inserting("(a) dog", [1], ["one"]) == "(one a) dog"
    assert inserting("电影", [1], ["新"]) == "电新影"
    assert inserting("电影", [1], ["，"]) == "电，影"
    assert inserting("I like it", [2], ["，"]) == "I like ， it"


def test_swapped_words_leave_gaps_and_marks_where_they_are() -> None:
    batch = TextBatch.from_texts(["One,  two three.", "我love你"])
    assert batch.swapped(np.array([0, 6]), np.array([3, 8])).texts() == ["three,  two One.", "你love我"]


def test_a_replaced_word_may_need_wider_characters_than_its_row() -> None:
    batch = TextBatch.from_texts(["plain words", "are kept"])
    codes = encoded("电影")
    changed = batch.replaced(np.array([1]), codes, np.array([2]), kinds_of(codes, np.array([2])))
    assert changed.texts() == ["plain 电影", "are kept"]
    assert changed.texts()[1] is batch.originals[1]


def test_edits_follow_one_another() -> None:
    batch = TextBatch.from_texts(["one two three four"])
    batch = batch.swapped(np.array([0]), np.array([3]))
    batch = batch.inserted(np.array([2]), encoded(","), np.array([1]), np.array([PUNCTUATION], dtype=np.uint8))
    mask = np.zeros(batch.kinds.size, dtype=bool)
    mask[1] = True
    assert batch.without(mask).texts() == ["four , three one"]


def test_a_word_of_a_megabyte_and_an_empty_batch_are_no_trouble() -> None:
    assert rebuilt(["x" * 1_000_000 + " y"]) == ["x" * 1_000_000 + " y"]
    assert TextBatch.from_texts([]).texts() == []
