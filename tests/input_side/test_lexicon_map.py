"""Vocabulary maps: applied, refused, learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bothways.config import Protect
from bothways.errors import UserError
from bothways.input_side.lexicon_learning import domain_words, learn, log_odds, pairs
from bothways.input_side.transform import InputContext
from bothways.registry import TRANSFORMS
from bothways.seeding import keys

PLAIN = InputContext(slot="reconstruct/0", protect=Protect(negators=False, numbers=False))
CHINESE = replace(PLAIN, language="zh")
MAP = Path(__file__).with_name("lexicon_map.tsv")


def mapped(texts: list[str], file: Path, context: InputContext = PLAIN, **knobs: Any) -> list[str]:
    batch = context.read(texts, keys(np.arange(len(texts))))
    return list(TRANSFORMS.get("lexicon_map")(path=str(file), **knobs)(batch, context).texts())


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(content: str) -> Path:
        file = tmp_path / "map.tsv"
        file.write_text(content, encoding="utf-8")
        return file

    return written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a movie , a Movie", "a product , a Product"),
        ("moviegoers", "moviegoers"),
        ("Great surprise!  great  surprise", "Bargain!  bargain"),  # a phrase, and the longest
        ("great", "great"),
        ("the old city.", "the new motor car."),
        ("great , surprise", "great , surprise"),
        ("", ""),
    ],
)
def test_words_and_phrases_become_what_the_map_says(text: str, expected: str) -> None:
    assert mapped([text], MAP) == [expected]


def test_chinese_words_are_found_without_spaces() -> None:
    assert mapped(["电影的导演，讲故事"], MAP, CHINESE) == ["商品的厂家，讲包装"]
    assert mapped(["城市和爱情", "城 市和爱情"], MAP, CHINESE) == ["质量", "城 市和爱情"]
    pytest.importorskip("jieba")
    assert mapped(["电影的导演很好"], MAP, replace(CHINESE, segmentation="word")) == ["商品的厂家很好"]


def test_protected_words_stay_though_the_map_has_them() -> None:
    context = replace(PLAIN, protect=Protect(words=("movie", "surprise")))
    assert mapped(["a movie, a film, a great surprise"], MAP, context) == ["a movie, a item, a great surprise"]


def test_the_rate_is_the_share_of_occurrences() -> None:
    texts = ["movie movie movie movie movie"] * 2000
    for rate in (0.2, 0.7):
        share = " ".join(mapped(texts, MAP, rate=rate)).split().count("product") / 10_000
        assert abs(share - rate) < 5 * (rate * (1 - rate) / 10_000) ** 0.5
    assert mapped(texts[:3], MAP, rate=0.0) == texts[:3]


def test_a_map_without_a_rate_maps_all_and_without_a_path_nothing() -> None:
    assert TRANSFORMS.build({"name": "lexicon_map", "path": "a.tsv"}).rate == 1.0
    assert TRANSFORMS.build({"name": "lexicon_map", "path": "a.tsv", "rate": 0.0}).rate == 0.0
    assert TRANSFORMS.build("lexicon_map").rate == 0.0


def test_a_changed_file_is_read_again(write: Any) -> None:
    file = write("a\tb\n")
    assert mapped(["a"], file) == ["b"]
    assert mapped(["a"], write("a\tlonger\n")) == ["longer"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a\tb\nfilm\n", r"map\.tsv:2: 'film' is not source<TAB>target"),
        ("film\t\n", "is not source<TAB>target"),
        ("film\ta\nFilm\tb\n", "'Film' becomes something else on line 1"),
        ("# nothing\n\n", "has no line of source<TAB>target"),
        ("wow!\tb\n", "'wow!' has punctuation"),
    ],
)
def test_a_broken_map_is_refused_with_its_line(write: Any, content: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        mapped(["film"], write(content))


def test_a_map_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        mapped(["film"], tmp_path / "none.tsv")
    with pytest.raises(ValidationError, match="needs a `path`"):
        TRANSFORMS.build({"name": "lexicon_map", "rate": 0.5})
    (tmp_path / "latin.tsv").write_bytes(b"caf\xe9\tb\n")
    with pytest.raises(UserError, match="is not UTF-8"):
        mapped(["film"], tmp_path / "latin.tsv")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.text("movie filmGreat surprise电影导演城市和爱情.!, \n\ud800😀", max_size=40), max_size=5),
    word=st.sampled_from(["character", "word"]),
)
def test_hostile_text_is_survived_and_rows_do_not_mix(rows: list[str], word: Any) -> None:
    context = replace(CHINESE, segmentation=word)
    whole = mapped(rows, MAP, context)
    assert whole == [mapped([row], MAP, context)[0] for row in rows]
    assert [bool(t.strip()) for t in whole] == [bool(t.strip()) for t in rows]


# --- learning -------------------------------------------------------------------------------------------------------

MOVIES = [
    "the film was dull",
    "a film by a director",
    "the plot of the film",
    "director and plot",
    "a film , again",
] * 4
SHOES = ["the boot was dull", "a boot by a maker", "the sole of the boot", "maker and sole", "a boot , again"] * 4
TABLE = {"film": 0, "boot": 1, "director": 2, "maker": 3, "plot": 4, "sole": 5, "dull": 6}
VECTORS = np.array([[9, 1, 0], [8, 0, 1], [0, 9, 1], [1, 8, 0], [1, 0, 9], [0, 1, 8], [3, 3, 3]], dtype=np.float32)


def test_log_odds_follow_the_paper() -> None:
    """Worked by hand: 8 of 20 words against 2 of 30, and a prior of 10 words, a fifth of both together."""
    z = log_odds(np.array([8, 12]), np.array([2, 28]), prior=0.2)
    a, b = 8 + 0.2 * 10, 2 + 0.2 * 10
    delta = np.log(a / (30 - a)) - np.log(b / (40 - b))
    assert z[0] == pytest.approx(delta / np.sqrt(1 / a + 1 / b))
    assert z[0] > 0 > z[1]


def test_a_word_that_both_use_alike_is_nobodys_own() -> None:
    found = domain_words(MOVIES, SHOES, least=2)
    z = dict(zip(found.words, found.z, strict=True))
    assert abs(z["dull"]) < 1e-9
    assert z["film"] > 2 > -2 > z["boot"]
    assert "the" not in z
    assert dict(zip(found.words, found.source, strict=True))["film"] == 16


def test_own_words_are_paired_with_their_counterparts() -> None:
    found = learn(MOVIES, SHOES, TABLE, VECTORS, least=2, z=1.0)
    assert {(pair.source, pair.target) for pair in found} == {("film", "boot"), ("director", "maker"), ("plot", "sole")}
    assert all(pair.z_source > 0 and pair.z_target > 0 and pair.similarity <= 1 for pair in found)
    similarity = [pair.similarity for pair in found]
    assert similarity == sorted(similarity, reverse=True)
    assert [p[0] for p in learn(SHOES, MOVIES, TABLE, VECTORS, least=2, z=1.0)] != [p[0] for p in found]


def test_words_without_a_vector_and_forms_of_one_word_are_not_paired() -> None:
    found = domain_words(["walked"] * 20, ["walking"] * 20)
    assert pairs(found, np.ones((len(found.words), 2)) + np.eye(len(found.words), 2), z=0.1, similarity=-1.0) == []
    assert pairs(found, np.zeros((len(found.words), 4))) == []
    with pytest.raises(UserError, match="no word of the two corpora has a vector"):
        learn(["一 二"], ["三"], TABLE, VECTORS)


def test_opposites_are_not_paired_though_they_are_near() -> None:
    found = domain_words(["bad", "weak"] * 20, ["good", "poor"] * 20)
    near = {"bad": [1.0, 0.1], "good": [1.0, 0.0], "weak": [-1.0, 0.1], "poor": [-1.0, 0.0]}
    learned = pairs(found, np.array([near[word] for word in found.words]), z=0.1, similarity=-1.0)
    assert ("weak", "poor") in {pair[:2] for pair in learned}
    assert ("bad", "good") not in {pair[:2] for pair in learned}


def test_chinese_words_are_learned() -> None:
    movies, shops = ["导演拍了这部电影，电影很精彩"] * 6, ["厂家做了这件商品，商品很便宜"] * 6
    found = domain_words(movies, shops, language="zh")
    z = dict(zip(found.words, found.z, strict=True))
    assert z["电影"] > 0 > z["商品"]


def test_the_same_corpora_have_no_words_of_their_own() -> None:
    found = domain_words(MOVIES, MOVIES, least=1)
    assert np.abs(found.z).max() < 1e-9
    assert pairs(found, np.random.default_rng(0).normal(size=(len(found.words), 4))) == []
    assert domain_words([], []).words == []
