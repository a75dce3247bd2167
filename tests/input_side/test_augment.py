"""Each operation on examples worked by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bothways.config import Protect
from bothways.errors import UserError
from bothways.input_side.statistics import Lottery, Statistics
from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.seeding import below, keys

EVERYTHING = InputContext(slot="s", protect=Protect(negators=False, numbers=False))
CHINESE = replace(EVERYTHING, language="zh")


def outcomes(name: str, text: str, context: InputContext = EVERYTHING, rows: int = 400, **knobs: Any) -> set[str]:
    """What rows of the same text become."""
    batch = context.read([text] * rows, keys(np.arange(rows)))
    return set(TRANSFORMS.get(name)(**knobs)(batch, context).texts())


def test_deletion_drops_words_and_keeps_one_and_all_marks() -> None:
    assert outcomes("random_deletion", "a b , c", p=1.0) == {"a ,", "b ,", ", c"}
    assert outcomes("random_deletion", "a b", p=0.5) == {"a b", "a", "b"}
    assert outcomes("random_deletion", "好看！", CHINESE, p=1.0) == {"好！", "看！"}


def test_deletion_drops_each_word_with_probability_p() -> None:
    batch = EVERYTHING.read(["a b c d e f g h i j"] * 4000, keys(np.arange(4000)))
    left = TRANSFORMS.get("random_deletion")(p=0.1)(batch, EVERYTHING)
    share = 1 - (left.sizes.sum() - 4000) / 40_000
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / 40_000) ** 0.5


def test_swap_exchanges_pairs() -> None:
    assert outcomes("random_swap", "a, b", p=0.9) == {"a, b", "b, a"}
    assert outcomes("random_swap", "a, b c", p=0.5) == {"a, b c", "b, a c", "c, b a", "a, c b"}
    assert outcomes("random_swap", "alone", p=1.0) == {"alone"}
    assert outcomes("random_swap", "a b c", p=1.0) == {"b a c"}
    assert "影电" in outcomes("random_swap", "电影", CHINESE, p=0.5)


def test_a_word_that_finds_no_other_leaves_its_neighbours_rows_alone() -> None:
    batch = EVERYTHING.read(["alone", "a b", "", "c d e", "f g"], keys(np.arange(5)))
    assert TRANSFORMS.get("random_swap")(p=1.0)(batch, EVERYTHING).texts() == ["alone", "b a", "", "d c e", "g f"]


def test_insertion_of_punctuation_is_that_of_aeda() -> None:
    marks = ".;?:!,"
    assert outcomes("random_insertion", "a b", p=1.0) == {f"{m} a {n} b" for m in marks for n in marks}
    assert outcomes("random_insertion", "好", CHINESE, p=1.0) == {f"{m}好" for m in "。；？：！，"}


def test_insertion_of_synonyms_goes_anywhere() -> None:
    result = outcomes("random_insertion", "a film", p=1.0, insert="synonym")
    assert {"movie a film", "a movie film"} <= result


def test_vocabulary_comes_from_the_training_rows() -> None:
    context = replace(EVERYTHING, statistics=Statistics.of(["x y y", "not 7 x"]))
    assert context.statistics is not None
    assert set(context.statistics.vocabulary()) == {"x", "y"}  # negators and numbers would change labels
    assert outcomes("random_insertion", "a", context, p=1.0, insert="vocabulary") == {"x a", "y a"}
    assert outcomes("random_substitution", "a b", context, p=1.0) == {"x x", "x y", "y x", "y y"}


def test_without_training_rows_substitution_says_so() -> None:
    with pytest.raises(UserError, match="random_substitution takes words from the training rows"):
        outcomes("random_substitution", "a b", p=0.5)


def test_statistics_count_words_and_rows() -> None:
    statistics = Statistics.of(["b a b", "b 电", ""])
    words = statistics.vocabulary()
    assert dict(zip(words, statistics.counts.tolist(), strict=True)) == {"a": 1, "b": 3, "电": 1}
    assert statistics.idf[words.index("b")] == pytest.approx(np.log(3 / 2))
    assert statistics.idf[words.index("a")] == pytest.approx(np.log(3))


def test_tfidf_spares_the_informative_words() -> None:
    rows = ["the plot was the dull thing"] + ["the end was the the same"] * 50
    context = replace(EVERYTHING, statistics=Statistics.of(rows))
    n = 1000
    batch = context.read([rows[0]] * n, keys(np.arange(n)))
    after = TRANSFORMS.get("random_substitution")(p=0.3, weighting="tfidf")(batch, context)
    changed = (np.array(after.tokens()) != np.array(rows[0].split())).mean(0)
    assert changed[1] == changed[4] == 0  # the rarest words of the row
    assert changed[2] > 0.3  # "was"


def test_synonyms_are_found_in_any_case_and_keep_a_capital() -> None:
    assert "movie" in outcomes("synonym_replacement", "film", p=1.0)
    assert "Movie" in outcomes("synonym_replacement", "Film", p=1.0)
    assert outcomes("synonym_replacement", "he was in it", p=1.0) == {"he was in it"}  # EDA spares function words


def test_chinese_synonyms_are_words_though_the_text_is_characters() -> None:
    result = outcomes("synonym_replacement", "A时间B", CHINESE, p=1.0)
    assert len(result) > 1
    assert all(text.startswith("A") and text.endswith("B") for text in result)


def test_a_protected_character_is_not_taken_with_the_word_around_it() -> None:
    context = replace(CHINESE, protect=Protect(negators=False, numbers=False, words=("间",)))
    assert all(text.endswith("间") for text in outcomes("synonym_replacement", "时间", context, p=1.0))


@pytest.mark.parametrize(
    ("kind", "word", "expected"),
    [
        ("swap", "abc", {"bac", "acb"}),
        ("swap", "aa", {"aa"}),
        ("delete", "abc", {"bc", "ac", "ab"}),
        ("delete", "a", {"a"}),
        ("keyboard", "p", {"0", "o", "l"}),
        ("keyboard", "P", {"0", "O", "L"}),
        ("insert", "p", {"0p", "op", "lp"}),
        ("ocr", "c", {"e"}),
        ("keyboard", "é", {"é"}),
        ("delete", "xe\u0301", {"e\u0301"}),  # never an accent without its letter
    ],
)
def test_each_error_of_latin_script(kind: str, word: str, expected: set[str]) -> None:
    assert outcomes("char_noise", word, p=1.0, kinds=(kind,)) == expected


def test_chinese_characters_become_homophones_but_never_negators() -> None:
    result = outcomes("char_noise", "布", CHINESE, p=1.0, kinds=("homophone",))
    assert "部" in result
    assert "不" not in result
    assert outcomes("char_noise", "布", CHINESE, p=1.0, kinds=("keyboard",)) == {"布"}
    assert len(outcomes("char_noise", "三", CHINESE, p=1.0, kinds=("glyph",))) >= 1


def test_trivial_and_rand_apply_operations_by_name() -> None:
    only = ("random_deletion",)
    assert outcomes("trivial", "a b", p=1.0, operations=only) == {"a b", "a", "b"}
    assert outcomes("rand", "a b c", n=2, p=1.0, operations=only) == {"a", "b", "c"}
    assert len(outcomes("rand", "a film", p=0.0, n=2)) == 1


def test_an_unknown_operation_is_refused_when_the_config_is_read() -> None:
    with pytest.raises((ValidationError, UserError), match="random_deletion"):
        TRANSFORMS.build({"name": "trivial", "operations": ["random_deletio"]})


def test_normalize_writes_one_way_what_can_be_written_in_several() -> None:
    assert outcomes("normalize", " Ｆｉｌｍ &amp;  cafe\u0301\u3000ok ") == {"Film & café ok"}
    assert outcomes("normalize", "Ａ①", nfkc=False) == {"A①"}
    assert outcomes("normalize", "電影很好看", CHINESE, simplified=True) == {"电影很好看"}
    assert outcomes("normalize", " \u3000 ") == {" \u3000 "}  # never empty


def test_nlpaug_runs_what_is_named_and_nothing_else() -> None:
    result = outcomes("nlpaug", "alpha beta gamma delta", rows=20, augmenter="char.KeyboardAug", arguments={})
    assert len(result) > 1
    with pytest.raises(ValidationError, match=r"did you mean 'char\.KeyboardAug'"):
        TRANSFORMS.build({"name": "nlpaug", "augmenter": "char.KeyboardAugg"})
    with pytest.raises(ValidationError):
        TRANSFORMS.build({"name": "nlpaug", "augmenter": "os.system"})
    with pytest.raises(UserError, match=r"nlpaug char\.KeyboardAug with arguments"):
        outcomes("nlpaug", "a b", rows=1, augmenter="char.KeyboardAug", arguments={"nonsense": 1})


def test_nlpaug_leaves_a_row_whose_negator_it_would_lose() -> None:
    context = replace(EVERYTHING, protect=Protect())
    text = "it is not a good film"
    knobs: dict[str, Any] = {"augmenter": "char.KeyboardAug", "arguments": {"min_char": 1, "aug_word_p": 0.3}}
    assert not all("not" in row.lower().split() for row in outcomes("nlpaug", text, EVERYTHING, rows=60, **knobs))
    result = outcomes("nlpaug", text, context, rows=60, **knobs)
    assert len(result) > 1
    assert all("not" in row.lower().split() for row in result)


@pytest.mark.parametrize("weights", [[1], [3, 1, 1, 400, 2, 7], [1] * 5000, [2**31, 1, 1], [1, 2**31]])
def test_a_lottery_draws_what_a_search_of_the_running_sum_would(weights: list[int]) -> None:
    cumulative = np.cumsum(np.array(weights, dtype=np.int64))
    bits = keys(np.arange(20_000, dtype=np.uint64))
    expected = np.searchsorted(cumulative, below(bits, int(cumulative[-1])), side="right")
    assert (Lottery.of(cumulative).draw(bits) == expected).all()
