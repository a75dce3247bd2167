"""Neighbours in a model's input embeddings: whole words, none of another meaning, a table for each model."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.errors import UserError
from bothways.input_side.transform import InputContext
from bothways.lexicons import neighbours
from bothways.registry import TRANSFORMS
from bothways.seeding import keys
from tests.tiny_language import encoder_dir

pytestmark = pytest.mark.usefixtures("cache_aside")
FILM = [
    ["film", "movie", "cinema", "films", "##film"],
    ["good", "great", "bad", "badly", "goodness"],
    ["plot", "story", "tale"],
    ["not", "never", "hardly"],
]


@pytest.mark.slow
def test_neighbours_are_whole_words_of_the_same_group_and_no_forms_or_opposites() -> None:
    found = neighbours(encoder_dir(FILM, ["##ing", "ta"]), "en")
    assert sorted(found.table.of("film")) == ["cinema", "movie"]
    assert found.table.of("good") == ["great"]  # bad is its antonym, badly a form of that, goodness one of its own
    assert sorted(found.table.of("story")) == ["plot", "tale"]
    assert set(found.table.words) <= {word for group in FILM for word in group if not word.startswith("##")}
    rows = np.split(found.cosines, found.table.offsets[1:-1])
    assert all((np.diff(row) <= 0).all() for row in rows)
    assert found.above(0.99).candidates.size == 0
    least = float(np.median(found.cosines))
    assert found.above(least).candidates.size == (found.cosines >= np.float32(least)).sum() > 0


@pytest.mark.slow
def test_another_model_has_another_table() -> None:
    film, changed = (neighbours(encoder_dir(FILM, seed=seed), "en") for seed in (3, 4))
    assert not np.array_equal(film.cosines, changed.cosines)


@pytest.mark.slow
def test_chinese_words_are_those_of_the_thesaurus_in_one_script() -> None:
    groups = [["电影", "影片", "電影", "的电影"], ["高兴", "快乐", "不高兴"]]
    found = neighbours(encoder_dir(groups), "zh")
    assert found.table.of("电影") == ["影片"]
    assert found.table.of("高兴") == ["快乐"]


@pytest.mark.slow
def test_a_model_without_words_of_the_language_is_an_error_in_one_line() -> None:
    with pytest.raises(UserError, match="no words of language 'zh' as one token"):
        neighbours(encoder_dir(FILM), "zh")


@pytest.mark.slow
def test_words_become_their_neighbours_and_negators_stay_out_of_it() -> None:
    texts = ["A GOOD Film , not bad", "the plot is never good", "nothing to replace"]
    model = encoder_dir(FILM)
    context = InputContext(slot="augment/0/0", model=model)
    transform = TRANSFORMS.build({"name": "synonym_replacement", "p": 1.0, "synonyms": "embeddings"})
    after = transform(context.read(texts, keys(np.arange(3))), context).texts()
    words = after[0].split()
    assert (words[0], words[1].lower(), words[3:5]) == ("A", "great", [",", "not"])
    assert words[2] in ("Movie", "Cinema")
    assert after[2] == texts[2]
    assert {word for text in after for word in text.split()} & {"hardly", "badly", "films"} == set()
    named = TRANSFORMS.build({"name": "synonym_replacement", "p": 1.0, "synonyms": "embeddings", "model": model})
    bare = InputContext(slot="augment/0/0")
    assert named(bare.read(texts, keys(np.arange(3))), bare).texts() == after
    with pytest.raises(UserError, match="needs a `model`"):
        transform(bare.read(texts, keys(np.arange(3))), bare)


def test_knobs_that_came_later_leave_older_experiments_their_digest() -> None:
    assert TRANSFORMS.build("synonym_replacement").spec() == {"name": "synonym_replacement", "p": 0.1}
    named = TRANSFORMS.build({"name": "synonym_replacement", "synonyms": "embeddings", "similarity": 0.6})
    assert named.spec() == {"name": "synonym_replacement", "p": 0.1, "synonyms": "embeddings", "similarity": 0.6}
    assert TRANSFORMS.build(named.spec()) == named
