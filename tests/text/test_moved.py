"""Where spans of a text are after it was changed: at the same characters, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.text import TextBatch, encoded, kinds_of, moved

ANY_TEXT = st.text(st.characters(codec=None), max_size=30) | st.text("ab1'-., 不好😀\u0301\u200d\ud800\n", max_size=20)
WORDS = ["new", "新", "，", "x's", "😀"]


def spans_of(batch: TextBatch, *spans: tuple[int, int, int]) -> list[str | None]:
    """The text under each (row, start, stop) of what came in, as it is now; None where it is nowhere."""
    rows, starts, stops = np.array(spans, dtype=np.int64).reshape(-1, 3).T
    texts = batch.texts()
    where = zip(rows.tolist(), *(found.tolist() for found in moved(batch, rows, starts, stops)), strict=True)
    return [None if a < 0 else texts[row][a:b] for row, a, b in where]


def span(text: str, part: str) -> tuple[int, int, int]:
    return 0, text.index(part), text.index(part) + len(part)


def mask(batch: TextBatch, *tokens: int) -> Any:
    found = np.zeros(batch.kinds.size, dtype=bool)
    found[list(tokens)] = True
    return found


def new(words: Sequence[str]) -> Any:
    codes, lengths = encoded("".join(words)), np.array([len(word) for word in words], dtype=np.int64)
    return codes, lengths, kinds_of(codes, lengths)


TEXT = "She said  Paris, in 1900, was home."
EDITS: dict[str, tuple[Callable[[TextBatch], TextBatch], str]] = {
    "nothing": (lambda b: b, TEXT),
    "a word before it is gone": (lambda b: b.without(mask(b, 0)), "said  Paris, in 1900, was home."),
    "a word after it is gone": (lambda b: b.without(mask(b, 4)), "She said  Paris, 1900, was home."),
    "something stands before it": (lambda b: b.inserted(np.array([0]), *new(["so"])), f"so {TEXT}"),
    "others change places": (
        lambda b: b.swapped(np.array([0]), np.array([8])),
        "home said  Paris, in 1900, was She.",
    ),
    "itself changes places": (
        lambda b: b.swapped(np.array([1]), np.array([2])),
        "She Paris  said, in 1900, was home.",
    ),
    "a word before it is replaced": (lambda b: b.replaced(np.array([1]), *new(["claimed"])), "She claimed  Paris, in"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_word_is_found_wherever_an_edit_has_moved_it(edit: str) -> None:
    change, expected = EDITS[edit]
    batch = change(TextBatch.from_texts([TEXT, "another row"]))
    assert batch.texts()[0].startswith(expected)
    assert spans_of(batch, span(TEXT, "Paris"), (1, 0, 7)) == ["Paris", "another"]
    starts, _ = moved(batch, *(np.array([value]) for value in span(TEXT, "Paris")))
    assert starts[0] == batch.texts()[0].index("Paris")


def test_a_span_that_was_cut_or_changed_is_nowhere() -> None:
    batch = TextBatch.from_texts([TEXT])
    phrase = span(TEXT, "Paris, in 1900")
    assert spans_of(batch.without(mask(batch, 4)), phrase) == [None]
    assert spans_of(batch.swapped(np.array([2]), np.array([4])), phrase) == [None]
    assert spans_of(batch.replaced(np.array([2]), *new(["Lyon"])), phrase) == [None]
    assert spans_of(batch.inserted(np.array([4]), *new(["only"])), phrase) == [None]


def test_a_span_inside_a_word_and_one_over_several_move_too() -> None:
    batch = TextBatch.from_texts([TEXT])
    batch = batch.without(mask(batch, 0))
    assert spans_of(batch, span(TEXT, "ari"), span(TEXT, "in 1900, was")) == ["ari", "in 1900, was"]


def test_chinese_moves_by_characters() -> None:
    text = "这部电影的导演来自北京。"
    batch = TextBatch.from_texts([text])
    dropped = batch.without(mask(batch, 0, 1))
    assert dropped.texts() == ["电影的导演来自北京。"]
    assert spans_of(dropped, span(text, "北京"), span(text, "部电影"), span(text, "导演")) == ["北京", None, "导演"]


def test_the_space_that_keeps_two_words_apart_cuts_a_span() -> None:
    batch = TextBatch.from_texts(["love你too"])
    apart = batch.without(mask(batch, 1))
    assert apart.texts() == ["love too"]
    assert spans_of(apart, (0, 0, 4), (0, 5, 8), (0, 0, 8)) == ["love", "too", None]


def test_the_first_word_of_all_is_found_behind_spaces_that_were_put_in() -> None:
    batch = TextBatch.from_texts(["one two", "three four"])
    batch = batch.inserted(np.array([0, 1, 3, 4]), *new(["a", "b", "c", "d"]))
    assert batch.texts() == ["a one b two", "c three d four"]
    assert spans_of(batch, (0, 0, 3), (0, 4, 7), (1, 0, 5), (1, 6, 10)) == ["one", "two", "three", "four"]


def test_a_text_rewritten_as_a_whole_keeps_no_span_and_the_rows_beside_it_do() -> None:
    context, texts = InputContext(), ["one &amp; two", "three four five"]
    batch = context.read(texts, np.arange(2, dtype=np.uint64))
    batch = batch.without(mask(batch, int(batch.offsets[1])))
    batch = TRANSFORMS.get("normalize")()(batch, context)
    assert batch.texts() == ["one & two", "four five"]
    assert spans_of(batch, (0, 0, 3), (1, 6, 10), (1, 0, 5)) == [None, "four", None]
    batch = batch.without(mask(batch, int(batch.offsets[1])))
    assert batch.texts() == ["one & two", "five"]
    assert spans_of(batch, (0, 0, 3), (1, 6, 10), (1, 11, 15)) == [None, None, "five"]


def test_no_row_and_no_span_are_no_trouble() -> None:
    assert spans_of(TextBatch.from_texts(["", "a"])) == []
    assert spans_of(TextBatch.from_texts([])) == []
    assert spans_of(TextBatch.from_texts([""]), (0, 0, 0)) == [None]


@st.composite
def edited(draw: st.DrawFn) -> tuple[list[str], TextBatch, set[int]]:
    """Texts, the batch after a few edits of any kind, and the rows that no edit has touched."""
    texts = draw(st.lists(ANY_TEXT, min_size=1, max_size=4))
    batch = TextBatch.from_texts(texts)
    for _ in range(draw(st.integers(0, 4))):
        words = np.flatnonzero(batch.is_word)
        some = [t for t in words.tolist() if draw(st.booleans())]
        kind = draw(st.sampled_from(["without", "swapped", "replaced", "inserted"]))
        tokens, fresh = np.array(some, dtype=np.int64), new([draw(st.sampled_from(WORDS)) for _ in some])
        rows = batch.rows_of(tokens)
        if kind == "without":
            batch = batch.without(mask(batch, *some))
        elif kind == "swapped":
            pairs = [(i, i + 1) for i in range(0, len(some) - 1, 2) if rows[i] == rows[i + 1]]
            a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
            batch = batch.swapped(tokens[a], tokens[b])
        else:
            batch = getattr(batch, kind)(tokens, *fresh)
    return texts, batch, set(np.flatnonzero(~batch.changed).tolist())


@settings(max_examples=120, deadline=None)
@given(edited(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(1, 30)), min_size=1))
def test_the_text_under_a_moved_span_is_what_it_was(
    case: tuple[list[str], TextBatch, set[int]], asked: list[tuple[int, int, int]]
) -> None:
    texts, batch, untouched = case
    inside = [
        (row, start, start + length)
        for row, start, length in asked
        if row < len(texts) and start + length <= len(texts[row])
    ]
    for (row, start, stop), found in zip(inside, spans_of(batch, *inside), strict=True):
        assert found in (None, texts[row][start:stop])
        assert found is not None or row not in untouched


@settings(max_examples=80, deadline=None)
@given(edited())
def test_every_word_that_is_still_there_is_found(case: tuple[list[str], TextBatch, set[int]]) -> None:
    """A word of what came in stands in `codes` where it stood; whatever has a token of its own left must be found."""
    texts, batch, _ = case
    fresh = TextBatch.from_texts(texts)
    starts, stops = fresh.starts[:, 1], fresh.stops[:, 1]
    words = np.flatnonzero(fresh.is_word)
    rows = fresh.rows_of(words)
    first = starts[words] - 1 - np.cumsum([0, *(len(text) + 1 for text in texts)])[rows]
    left = set(zip(batch.starts[:, 1].tolist(), batch.stops[:, 1].tolist(), strict=True))
    expected = [(a, b) in left for a, b in zip(starts[words].tolist(), stops[words].tolist(), strict=True)]
    found, _ = moved(batch, rows, first, first + stops[words] - starts[words])
    assert (found >= 0).tolist() == expected
