"""The tables there are, each built once from its asset's text files into the cache."""

from __future__ import annotations

import re
from collections import Counter
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
_SENSE_POS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
_SMALL = 4  # words in a group of near-equals; larger ones are looser
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
def close_synonyms(language: str) -> SynonymTable:
    """Of the synonyms, those that are one in the sense that a word nearly always has.

    `en`: in lower case, of the synset in which WordNet's tagged texts have the word at least half of the time, and the
    synonym at least a third of it. `zh`: of two or more characters, both in one single group of the
    thesaurus, which is small or they share a character. Raises `UserError` for another language.
    """
    if language not in _CLOSE:
        raise UserError(f"no synonyms for language {language!r}: {did_you_mean(language, _CLOSE)}")
    name, read = _CLOSE[language]
    return _table(name, "close", read)


@cache
def antonyms() -> SynonymTable:
    """English words and their opposites, as WordNet names them."""
    return _table("wordnet", "antonyms", _antonyms)


@cache
def words_zh() -> frozenset[str]:
    """All words of the Cilin thesaurus, those without synonyms too: what a Chinese word is."""
    return frozenset(chain.from_iterable(_cilin_groups(resolve("asset:chinese_thesaurus"), every=True)))


def close_folder(language: str) -> str:
    """The name of the cache folder of `close_synonyms(language)`: another pin or layout is another folder."""
    return _folder(_CLOSE[language][0], "close")


@cache
def glyphs_zh() -> Glyphs:
    return Glyphs(
        homophones=_table("chinese_thesaurus", "homophones", lambda folder: _groups(_homophones(folder))),
        equivalents=_table("chinese_thesaurus", "equivalents", lambda folder: _groups(_equivalents(folder))),
    )


def _table(name: str, table: str, read: Callable[[Path], Candidates]) -> SynonymTable:
    def build(work: Path) -> None:
        SynonymTable.from_mapping(read(resolve(f"asset:{name}"))).save(work)

    return SynonymTable.load(build_once(root() / "lexicons" / _folder(name, table), build))


def _folder(name: str, table: str) -> str:
    return f"{asset(name).folder}-{table}-{_LAYOUT}"


def _wordnet(folder: Path) -> Candidates:
    """The format is wndb(5WN); lines that start with a space are the licence."""
    files = folder / "corpora" / "wordnet"
    found: Candidates = {}
    for pos in ("noun", "verb", "adj", "adv"):
        synsets = _synsets(files, pos)
        for line in _lines(files / f"index.{pos}"):
            lemma, _, senses, *rest = line.split()  # …, then as many synset offsets, the most frequent sense first
            for offset in rest[-int(senses) :]:
                words = [word for word in synsets[offset] if _ENGLISH_WORD.fullmatch(word)]
                for word in words:
                    if word.lower() == lemma:
                        found.setdefault(word, []).extend(words)
    return {word: others for word, others in found.items() if len(set(others)) > 1}


def _synsets(files: Path, pos: str) -> dict[str, list[str]]:
    """Offset → words, of one part of speech."""
    synsets: dict[str, list[str]] = {}
    for line in _lines(files / f"data.{pos}"):
        fields = line.split(" ")  # offset, file number, type, word count (hexadecimal), then word, sense id, …
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        synsets[fields[0]] = [word.partition("(")[0] for word in words]  # adjectives may end in (p), (a) or (ip)
    return synsets


def _antonyms(folder: Path) -> Candidates:
    """Pointers follow the words: their number, then symbol, offset, part of speech, and which word points to which."""
    found: Candidates = {}
    words: dict[tuple[str, str], list[str]] = {}
    pointers: list[tuple[str, tuple[str, str], int]] = []
    for pos in ("noun", "verb", "adj", "adv"):
        letter = "a" if pos == "adj" else pos[0] if pos != "adv" else "r"
        for line in _lines(folder / "corpora" / "wordnet" / f"data.{pos}"):
            fields = line.split(" ")
            end = 4 + 2 * int(fields[3], 16)
            words[letter, fields[0]] = [word.partition("(")[0] for word in fields[4:end:2]]
            for at in range(end + 1, end + 1 + 4 * int(fields[end]), 4):
                symbol, offset, other, which = fields[at : at + 4]
                if symbol == "!":
                    word = words[letter, fields[0]][int(which[:2], 16) - 1]
                    pointers.append((word, (other, offset), int(which[2:], 16) - 1))
    for word, target, number in pointers:
        found.setdefault(word, []).append(words[target][number])
    return found


def _close_wordnet(folder: Path) -> Candidates:
    """The format of index.sense is senseidx(5WN): sense key, synset offset, sense number, count in tagged texts."""
    files = folder / "corpora" / "wordnet"
    senses: dict[str, dict[tuple[str, str], float]] = {}
    for line in _lines(files / "index.sense"):
        key, offset, number, count = line.split()
        lemma, _, rest = key.partition("%")
        weight = int(count) + 0.5 / int(number)  # most senses are in no tagged text: then the first weighs most
        senses.setdefault(lemma, {})[_SENSE_POS[rest[0]], offset] = weight
    shares = {
        lemma: {sense: weight / sum(weights.values()) for sense, weight in weights.items()}
        for lemma, weights in senses.items()
    }
    synsets = {pos: _synsets(files, pos) for pos in ("noun", "verb", "adj", "adv")}
    found: Candidates = {}
    for lemma, of in shares.items():
        (pos, offset), share = max(of.items(), key=lambda item: item[1])
        words = [w for w in synsets[pos][offset] if w.islower() and _ENGLISH_WORD.fullmatch(w)]
        others = [w for w in words if shares[w].get((pos, offset), 0.0) >= 1 / 3]
        if share >= 0.5 and lemma in words and len(others) > 1:
            found[lemma] = others
    return found


def _lines(file: Path) -> Iterable[str]:
    return (line for line in file.read_text(encoding="ascii").split("\n") if line and not line.startswith(" "))


def _cilin(folder: Path) -> Candidates:
    return _groups(_cilin_groups(folder))


def _close_cilin(folder: Path) -> Candidates:
    groups = _cilin_groups(folder)
    count = Counter(chain.from_iterable(groups))
    close = [[word for word in group if len(word) > 1 and count[word] == 1] for group in groups]
    return {
        word: [other for other in group if len(group) <= _SMALL or set(word) & set(other)]
        for group in close
        for word in group
    }


def _cilin_groups(folder: Path, every: bool = False) -> list[list[str]]:
    """The groups of synonyms; with `every`, those of merely related words too."""
    lines = (folder / "synonyms.txt").read_text(encoding="utf-8").splitlines()
    groups = (line.split()[1:] for line in lines if every or line.split(" ", 1)[0].endswith("="))
    return [[word for word in group if _CHINESE_WORD.fullmatch(word)] for group in groups]


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
_CLOSE: dict[str, tuple[str, Callable[[Path], Candidates]]] = {
    "en": ("wordnet", _close_wordnet),
    "zh": ("chinese_thesaurus", _close_cilin),
}
