"""Synonym tables: well-formed, symmetric, and saying what their sources say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bothways.errors import UserError
from bothways.lexicons import SynonymTable, antonyms, close_synonyms, glyphs_zh, synonyms, zipf

TABLES = {
    "en": lambda: synonyms("en"),
    "zh": lambda: synonyms("zh"),
    "homophones": lambda: glyphs_zh().homophones,
    "equivalents": lambda: glyphs_zh().equivalents,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_sorted_unique_memory_mapped_and_free_of_self_loops(name: str) -> None:
    table = TABLES[name]()
    n = len(table.words)
    assert all(isinstance(array, np.memmap) for array in (table.words, table.offsets, table.candidates))
    assert (table.words[:-1] < table.words[1:]).all()
    assert table.offsets.dtype == np.int64 and table.candidates.dtype == np.int32
    assert table.offsets.shape == (n + 1,) and table.offsets[0] == 0 and table.offsets[-1] == len(table.candidates)
    assert (np.diff(table.offsets) > 0).all()
    rows = np.repeat(np.arange(n), np.diff(table.offsets))
    assert table.candidates.min() >= 0 and table.candidates.max() < n
    assert (rows != table.candidates).all()
    forth = np.sort(rows.astype(np.int64) * n + table.candidates)
    assert (forth[:-1] < forth[1:]).all()  # no candidate twice
    back = np.sort(table.candidates.astype(np.int64) * n + rows)
    assert np.array_equal(forth, back)  # whoever is a candidate has the other as one


def test_english_synonyms_share_a_synset_and_are_single_words() -> None:
    table = synonyms("en")
    assert table.of("movie") == ["film", "picture", "pic", "flick"]  # 'moving picture' and its like are two words
    assert table.of("galore") == ["abounding"]  # WordNet writes it galore(ip)
    assert table.of("zebra") == table.of("no such word") == []
    assert not any(any(c in str(word) for c in " _(.0123456789") for word in table.words)
    assert 45_000 < len(table.words) < 55_000


def test_the_commonest_sense_of_an_english_word_comes_first() -> None:
    assert synonyms("en").of("car")[:2] == ["auto", "automobile"]


def test_chinese_synonyms_are_synonyms_not_merely_related() -> None:
    table = synonyms("zh")
    assert "快乐" in table.of("高兴")
    # 流民, 游民 and 贱民 share a "#" group (related words), but only the first two an "=" group.
    assert "游民" in table.of("流民") and "贱民" not in table.of("流民")
    assert min("".join(table.words.tolist())) > "\u2fff"  # no stray Latin letter or full stop


def test_homophones_sound_alike_and_equivalents_are_numerals() -> None:
    glyphs = glyphs_zh()
    assert "号" in glyphs.homophones.of("好")
    assert glyphs.equivalents.of("一") == ["1", "壹", "①"]


def test_a_table_survives_the_disk(tmp_path: Path) -> None:
    table = SynonymTable.from_mapping({"b": ["a", "b", "c", "a"], "c": ["b"]})
    table.save(tmp_path)
    loaded = SynonymTable.load(tmp_path)
    assert loaded.words.tolist() == ["a", "b", "c"]
    assert (loaded.of("a"), loaded.of("b"), loaded.of("c")) == ([], ["a", "c"], ["b"])


def test_another_language_is_refused() -> None:
    with pytest.raises(UserError, match="no synonyms for language 'fr': known: en, zh"):
        synonyms("fr")


def test_antonyms_point_both_ways() -> None:
    assert "good" in antonyms().of("bad") and "bad" in antonyms().of("good")
    assert antonyms().of("worst") == ["best"]
    assert antonyms().of("zebra") == []


def test_close_synonyms_are_one_in_the_usual_sense_of_a_word() -> None:
    table = close_synonyms("en")
    assert "story" in table.of("tale")
    assert "square" in synonyms("en").of("lame") and table.of("lame") == []  # no sense of it is the usual one
    assert set(close_synonyms("zh").of("价钱")) >= {"价格"}
    assert not any(len(str(word)) == 1 for word in close_synonyms("zh").words)
    with pytest.raises(UserError, match="no synonyms for language 'fr'"):
        close_synonyms("fr")


@pytest.mark.parametrize(("language", "common", "rare"), [("en", "story", "tale"), ("zh", "价格", "价钱")])
def test_a_common_word_has_a_higher_zipf_frequency(language: str, common: str, rare: str) -> None:
    table, frequency = close_synonyms(language), zipf(language)
    assert frequency.shape == table.words.shape and isinstance(frequency, np.memmap)
    at = {word: float(frequency[np.searchsorted(table.words, word)]) for word in (common, rare)}
    assert 5 < at[common] < 7 and at[rare] < at[common] - 0.5
