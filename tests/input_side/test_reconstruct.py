"""Simplification, key phrases and summaries on examples worked by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.config import Protect
from bothways.input_side.graph_ranking import pagerank
from bothways.input_side.keyphrases import Words, textrank, yake
from bothways.input_side.sentences import sentences
from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.seeding import keys
from bothways.text import TextBatch, decoded

PLAIN = InputContext(slot="reconstruct/0", protect=Protect(negators=False, numbers=False))
GUARDED = replace(PLAIN, protect=Protect())
CHINESE = replace(PLAIN, language="zh")
MARKS = st.text('aA1.。!?,，；()（）<>@-:/ \n\u3000不电影好看"”😀\ud800', max_size=60)
PIECES = "(|)|（|）|-lrb- |-rrb-|www.a.com|a@b.com|<b|©|all rights reserved|read more ...|公众号|责任编辑：|张三|x| "
HOSTILE = MARKS | st.lists(st.sampled_from(PIECES.split("|")), max_size=8).map("".join)


def changed(name: str, texts: list[str], context: InputContext = PLAIN, **knobs: Any) -> list[str]:
    batch = context.read(texts, keys(np.arange(len(texts))))
    return list(TRANSFORMS.get(name)(**knobs)(batch, context).texts())


def one(name: str, text: str, context: InputContext = PLAIN, **knobs: Any) -> str:
    return changed(name, [text], context, **knobs)[0]


def spelled(text: str, **how: bool) -> list[str]:
    batch, found = sentences(TextBatch.from_texts(["Another row. It has two.", text]), **how)
    ours = found.only(found.rows == 1)
    return [
        decoded(batch.codes[batch.starts[a, 1] : batch.stops[b - 1, 1]])
        for a, b in zip(ours.first, ours.stop, strict=True)
    ]


def test_sentences_are_spans_and_a_single_one_can_be_read_by_clause() -> None:
    assert spelled("One. Two!") == ["One.", "Two!"]
    assert spelled("一，二；三", clauses=True) == ["一，", "二；", "三"]
    assert spelled("一，二。三，四", clauses=True) == ["一，二。", "三，四"]
    assert spelled("") == spelled("  ") == []


# --- simplify -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I like it (a lot).", "I like it."),
        ("a fine -lrb- and long -rrb- story", "a fine story"),
        ("(only this)", "(only this)"),  # nothing would be left
        ("(Spielberg) has done it", "(Spielberg) has done it"),  # in front of all, brackets often hold the subject
        ("actor(s) and f(x)", "actor(s) and f(x)"),
        ("so :( and sad :)", "so :( and sad :)"),
        ("one (two\nthree) four", "one (two\nthree) four"),
        ("See https://a.b/c?d=e now", "See now"),
        ("<p>Good<br /> film</p>", "Good film"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("Great movie! Read more...", "Great movie!"),
        ("read more books", "read more books"),
        ("Nice. Sent from my iPhone", "Nice."),
        ("Nice. © Foo Inc. All rights reserved.", "Nice."),
    ],
)
def test_simplify_drops_what_is_beside_the_point(text: str, expected: str) -> None:
    assert one("simplify", text, parts=("parentheses", "boilerplate")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("这部电影（真的很长）不错。", "这部电影不错。"),
        ("好看，阅读全文>>", "好看"),
        ("（只有括号）", "（只有括号）"),
        ("很好！责任编辑：王小明", "很好！"),
        ("看http://a.b/c这里", "看这里"),
    ],
)
def test_simplify_drops_it_in_chinese(text: str, expected: str) -> None:
    assert one("simplify", text, CHINESE, parts=("parentheses", "boilerplate")) == expected


def test_what_is_dropped_does_not_depend_on_the_rows_around() -> None:
    shouted = "Fine. READ MORE..."
    assert one("simplify", shouted) == "Fine."
    assert changed("simplify", [shouted, "and more", "Great. Read more..."]) == ["Fine.", "and more", "Great."]
    assert one("simplify", "A -LRB- long -RRB- film") == "A film"
    for rows in ("good (so|they say)", "fine|see www.a.com now", "good -lrb- so|they -rrb- say", "不(:|)"):
        assert changed("simplify", rows.split("|")) == [one("simplify", row) for row in rows.split("|")]


def test_brackets_that_hold_a_protected_word_stay() -> None:
    assert one("simplify", "It is (not) good (really) in (1999)", GUARDED) == "It is (not) good in (1999)"
    listed = replace(PLAIN, protect=Protect(negators=False, numbers=False, words=("really",)))
    assert one("simplify", "It is good (really)", listed) == "It is good (really)"


def test_rare_words_become_commoner_ones_and_names_stay() -> None:
    only = {"parts": ("words",), "strength": 1.0}
    assert one("simplify", "A genuinely tedious tale", **only) == "A really boring story"
    assert one("simplify", "Tedious, and the Tale goes on", **only) == "Boring, and the Tale goes on"
    assert one("simplify", "the story is good", **only) == "the story is good"
    assert one("simplify", "an enigma", **only) == "an enigma"  # `an mystery` would be wrong
    listed = replace(PLAIN, protect=Protect(words=("tale",)))
    assert one("simplify", "a tedious tale", listed, **only) == "a boring tale"


def test_more_strength_reaches_commoner_words() -> None:
    text = "an utterly engrossing narrative"
    results = [one("simplify", text, parts=("words",), strength=strength) for strength in (0.05, 0.5, 1.0)]
    assert results == [text, "an utterly fascinating narrative", "an absolutely fascinating story"]


def test_rare_chinese_words_are_told_by_jieba() -> None:
    assert one("simplify", "价钱不高，礼品很多", CHINESE, parts=("words",), strength=1.0) == "价格不高，礼物很多"


def test_long_sentences_are_divided_where_a_clause_begins() -> None:
    only = {"parts": ("sentences",), "strength": 1.0}
    text = "The film has a very fine cast of old hands, and it never once forgets what the story is really about."
    assert one("simplify", text, **only) == (
        "The film has a very fine cast of old hands. It never once forgets what the story is really about."
    )
    lower = "a film with a very fine cast of old hands , but it soon forgets what the story is really about ."
    assert one("simplify", lower, **only) == lower.replace(" , but", " . but")
    assert one("simplify", "It is short, and it is good.", **only) == "It is short, and it is good."
    text = "The list has apples from the south, pears from the north, plums from the east, and figs from far away."
    assert one("simplify", text, **only) == text  # what follows has no subject


def test_chinese_halves_that_belong_together_stay_together() -> None:
    only = {"parts": ("sentences",), "strength": 1.0}
    whole = "我们昨天下午一起去看了这部新上映的电影，但是结尾实在让我和朋友们都感到十分失望"
    assert one("simplify", whole, CHINESE, **only) == whole.replace("，但", "。但")
    assert one("simplify", "虽然" + whole, CHINESE, **only) == "虽然" + whole


# --- key phrases ----------------------------------------------------------------------------------------------------

STORY = (
    "The old lighthouse stands on a cliff. Its lighthouse keeper, Anna Berg, has seen many ships. One night the "
    "lighthouse keeper hears a strange signal. Anna Berg must decide whom she can trust."
)


@pytest.mark.parametrize("method", ["yake", "textrank"])
def test_key_phrases_are_what_the_text_is_about(method: str) -> None:
    phrases, bar, rest = one("extract_keyphrases", STORY, method=method, n=4).partition(" | ")
    assert (bar, rest) == (" | ", STORY)
    assert len(phrases.split("; ")) == 4
    assert "Anna Berg" in phrases and "lighthouse" in phrases


def test_phrases_go_before_behind_or_instead() -> None:
    text = "The superb acting, and the weak plot."
    assert one("extract_keyphrases", text, n=1) == "superb acting | The superb acting, and the weak plot."
    assert one("extract_keyphrases", text, mode="append") == f"{text} | superb acting; weak plot"
    assert one("extract_keyphrases", text, mode="replace") == "superb acting; weak plot"
    assert one("extract_keyphrases", text, mode="replace", max_words=1, n=4) == "superb acting; weak plot"  # they touch


def test_phrases_instead_of_a_text_keep_its_protected_words() -> None:
    text = "The acting is not a good thing, however you look at its 3 parts."
    result = one("extract_keyphrases", text, GUARDED, mode="replace", n=1)
    assert {"not", "3"} <= set(result.replace(";", "").split())


def test_without_a_word_that_says_something_a_text_stays() -> None:
    for text in ("it was what it was", "", " ", "!!!", "42"):
        assert one("extract_keyphrases", text) == text


def test_chinese_phrases_are_words() -> None:
    text = "酒店环境很好，服务态度也不错，房间非常干净，就是早餐品种太少。"
    phrases = one("extract_keyphrases", text, CHINESE, n=3).partition(" | ")[0].split("；")
    assert len(phrases) == 3
    assert all(phrase in text and len(phrase) >= 2 for phrase in phrases)
    assert "服务态度" in one("extract_keyphrases", text, CHINESE, n=5, method="textrank")


def test_yake_follows_its_formula_for_a_single_word() -> None:
    """Worked by hand: in "Red apples. Sour apples." `apples` is twice among three terms, in both of two sentences."""
    words = Words.of(TextBatch.from_texts(["Red apples. Sour apples."]), "en")
    found = yake(words, 1)
    texts = [decoded(words.batch.words(words.tokens[[i]])[0]) for i in found.first]
    cost = dict(zip(texts, found.cost, strict=True))
    counts = np.array([1, 2, 1])
    frequency = 2 / (counts.mean() + counts.std())
    related = 1 + 2 / 2 * 2 / 2  # two different left neighbours of two, nothing on the right; twice is the most
    score = related * np.log(np.log(3.5)) / (frequency / related + 1.0 / related)
    assert cost["apples"] == pytest.approx(score / (2 * (1 + score)))


def test_a_phrase_shares_no_word_with_a_better_one() -> None:
    words = Words.of(TextBatch.from_texts([STORY, "one two three four five six seven eight nine ten"]), "en")
    for phrases in (yake(words, 3), textrank(words, 3)):
        chosen = phrases.best(10, words)
        terms = phrases.terms[chosen]
        content = terms[(terms >= 0) & ~words.stops[terms]]
        assert content.size == np.unique(content).size > 5


# --- summaries ------------------------------------------------------------------------------------------------------

NEWS = (
    "The harbour bridge was closed on Monday. Engineers found cracks in the bridge during an inspection. "
    "My cousin likes pancakes. The cracks in the harbour bridge will be repaired by engineers this month."
)


@pytest.mark.parametrize("method", ["lexrank", "textrank"])
def test_a_summary_leaves_out_what_nothing_else_speaks_of(method: str) -> None:
    result = one("summarize", NEWS, method=method, ratio=0.9)
    assert "pancakes" not in result
    assert result.startswith("The harbour bridge was closed") and result.endswith("this month.")


@pytest.mark.parametrize("method", ["lexrank", "textrank", "lead"])
def test_a_summary_keeps_to_its_budget(method: str) -> None:
    words = len(NEWS.split())
    for ratio in (0.1, 0.3, 0.5, 0.8):
        result = one("summarize", NEWS, method=method, ratio=ratio)
        single = result.count(".") == 1
        assert single or len(result.split()) <= np.ceil(ratio * words)
    assert len(one("summarize", NEWS, method=method, ratio=1.0, max_words=16).split()) <= 16


def test_lead_takes_the_first_sentences() -> None:
    assert one("summarize", "A b c. D e f. G h i.", method="lead", ratio=0.7) == "A b c. D e f."


def test_what_has_one_sentence_is_its_own_summary() -> None:
    for text in ("", " ", "!!!", "one", "a sentence without an end", "(Only this.)"):
        assert one("summarize", text, ratio=0.1) == text


def test_listed_words_hold_their_sentence_and_negators_if_asked() -> None:
    context = replace(GUARDED, protect=Protect(words=("pancakes",)))
    assert "My cousin likes pancakes." in one("summarize", NEWS, context, ratio=0.1)
    text = NEWS + " It is not for sale."
    assert "not" not in one("summarize", text, GUARDED, ratio=0.3).split()
    assert "It is not for sale." in one("summarize", text, GUARDED, ratio=0.3, keep="protected")


def test_every_sentence_of_a_summary_is_one_of_the_text() -> None:
    whole = set(NEWS.replace(". ", ".|").split("|"))
    assert set(one("summarize", NEWS, ratio=0.6).replace(". ", ".|").split("|")) < whole


def test_chinese_without_full_stops_is_summarised_by_clause() -> None:
    text = "酒店位置很好，离酒店不远有地铁，我朋友爱吃面，酒店的位置让人满意"
    result = one("summarize", text, CHINESE, ratio=0.8)
    assert "面" not in result and "酒店位置很好" in result
    assert not result.endswith("，")


def test_a_summary_is_also_that_of_a_text_that_was_changed_before() -> None:
    context = replace(GUARDED, protect=Protect(words=("pancakes",)))
    batch = context.read([NEWS], keys(np.arange(1)))
    moved = batch.swapped(np.array([1]), np.array([2]))
    result = TRANSFORMS.get("summarize")(ratio=0.2)(moved, context).texts()[0]
    assert "pancakes" in result


def test_pagerank_of_a_star_is_known() -> None:
    """Two leaves hand all they have to the hub, which halves what it has: hub = 0.05 + 0.85 (1 - hub)."""
    rank = pagerank(lambda r: np.array([r[1] + r[2], r[0] / 2, r[0] / 2]), np.full(3, 3.0))
    assert rank[0] == pytest.approx(0.9 / 1.85, abs=1e-3)
    assert rank.sum() == pytest.approx(1.0)


# --- all of them ----------------------------------------------------------------------------------------------------

EVERY = [
    ("simplify", {"strength": 1.0}),
    ("extract_keyphrases", {"mode": "replace"}),
    ("extract_keyphrases", {"method": "textrank"}),
    ("summarize", {"ratio": 0.3}),
    ("summarize", {"ratio": 0.3, "method": "textrank"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "knobs"), EVERY)
@pytest.mark.parametrize("language", ["en", "zh"])
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(HOSTILE, max_size=5))
def test_text_full_of_marks_is_survived_and_rows_do_not_mix(
    name: str, knobs: dict[str, Any], language: str, rows: list[str]
) -> None:
    context = replace(GUARDED, language=language)
    whole = changed(name, rows, context, **knobs)
    assert whole == [one(name, row, context, **knobs) for row in rows]
    for before, after in zip(rows, whole, strict=True):
        assert bool(after.strip()) == bool(before.strip())
        if name != "summarize":
            guarded = context.read([before], keys(np.arange(1)))
            kept = [decoded(guarded.words(np.array([t]))[0]) for t in np.flatnonzero(guarded.protected)]
            assert all(word in after for word in kept)


@pytest.mark.parametrize(("name", "knobs"), EVERY)
def test_mixed_languages_are_read(name: str, knobs: dict[str, Any]) -> None:
    text = "这部 movie 非常好看。The director 导演得 very well, 我很喜欢！I will watch it again。"
    for language in ("en", "zh"):
        result = one(name, text, replace(GUARDED, language=language), **knobs)
        assert result.strip() and "\ufffd" not in result


@pytest.mark.parametrize(("name", "knobs"), EVERY)
def test_nothing_is_drawn(name: str, knobs: dict[str, Any]) -> None:
    batches = [PLAIN.read([STORY, NEWS], keys(seed, np.arange(2))) for seed in (1, 2)]
    first, second = (TRANSFORMS.get(name)(**knobs)(batch, PLAIN).texts() for batch in batches)
    assert first == second
    assert TRANSFORMS.get(name).train_only is False
