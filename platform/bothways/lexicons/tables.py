"""The tables there are, each built once from its asset's text files into the cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from bothways.assets import asset, resolve, root
from bothways.assets.files import build_once
from bothways.errors import UserError, did_you_mean
from bothways.lexicons.table import SynonymTable

_LAYOUT = 1  # raise it when what a table holds changes, and it is built again
_CHINESE_WORD = re.compile("[〇\u3400-\u4dbf\u4e00-\u9fff]+")  # the thesaurus has a few misprints such as 契.
_ENGLISH_WORD = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*")
Candidates = dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """Chinese characters that stand for one another.

    `homophones`: same pinyin whatever the tone, common characters first. `equivalents`: other forms of a numeral.
    """

    homophones: SynonymTable
    equivalents: SynonymTable


@cache
def synonyms(language: str) -> SynonymTable:
    """Single words with the same meaning.

    `en`: WordNet 3.0 lemmas that share a synset, of any part of speech, in the order of their senses' frequency; case
    as in WordNet. `zh`: members of one "=" group (synonyms, not merely related words) of the Cilin thesaurus.
    Raises `UserError` for another language.
    """
    if language not in _SYNONYMS:
        raise UserError(f"no synonyms for language {language!r}: {did_you_mean(language, _SYNONYMS)}")
    name, read = _SYNONYMS[language]
    return _table(name, "synonyms", read)


@cache
def glyphs_zh() -> Glyphs:
    return Glyphs(
        homophones=_table("chinese_thesaurus", "homophones", lambda folder: _groups(_homophones(folder))),
        equivalents=_table("chinese_thesaurus", "equivalents", lambda folder: _groups(_equivalents(folder))),
    )


def _table(name: str, table: str, read: Callable[[Path], Candidates]) -> SynonymTable:
    def build(work: Path) -> None:
        SynonymTable.from_mapping(read(resolve(f"asset:{name}"))).save(work)

    folder = root() / "lexicons" / f"{asset(name).folder}-{table}-{_LAYOUT}"
    return SynonymTable.load(build_once(folder, build))


def _wordnet(folder: Path) -> Candidates:
    """The format is wndb(5WN); lines that start with a space are the licence."""
    files = folder / "corpora" / "wordnet"
    found: Candidates = {}
    for pos in ("noun", "verb", "adj", "adv"):
        synsets: dict[str, list[str]] = {}
        for line in _lines(files / f"data.{pos}"):
            fields = line.split(" ")  # offset, file number, type, word count (hexadecimal), then word, sense id, …
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            synsets[fields[0]] = [word.partition("(")[0] for word in words]  # adjectives may end in (p), (a) or (ip)
        for line in _lines(files / f"index.{pos}"):
            lemma, _, senses, *rest = line.split()  # …, then as many synset offsets, the most frequent sense first
            for offset in rest[-int(senses) :]:
                words = [word for word in synsets[offset] if _ENGLISH_WORD.fullmatch(word)]
                for word in words:
                    if word.lower() == lemma:
                        found.setdefault(word, []).extend(words)
    return {word: others for word, others in found.items() if len(set(others)) > 1}


def _lines(file: Path) -> Iterable[str]:
    return (line for line in file.read_text(encoding="ascii").split("\n") if line and not line.startswith(" "))


def _cilin(folder: Path) -> Candidates:
    lines = (folder / "synonyms.txt").read_text(encoding="utf-8").splitlines()
    groups = (line.split()[1:] for line in lines if line.split(" ", 1)[0].endswith("="))
    return _groups([word for word in group if _CHINESE_WORD.fullmatch(word)] for group in groups)


def _homophones(folder: Path) -> Iterable[list[str]]:
    """`pinyin<TAB>character<TAB>…`, a line for each syllable."""
    return (line.split("\t")[1:] for line in (folder / "homophones.txt").read_text(encoding="utf-8").splitlines())


def _equivalents(folder: Path) -> Iterable[list[str]]:
    return (line.split("\t") for line in (folder / "equivalents.txt").read_text(encoding="utf-8").splitlines())


def _groups(groups: Iterable[list[str]]) -> Candidates:
    """Each member's candidates: the other members of its groups, in the groups' order."""
    found: dict[str, list[list[str]]] = {}
    for group in groups:
        for word in group:
            found.setdefault(word, []).append(group)
    return {word: list(chain.from_iterable(member_of)) for word, member_of in found.items()}


_SYNONYMS: dict[str, tuple[str, Callable[[Path], Candidates]]] = {
    "en": ("wordnet", _wordnet),
    "zh": ("chinese_thesaurus", _cilin),
}
