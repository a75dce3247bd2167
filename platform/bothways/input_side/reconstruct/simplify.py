"""Text simplification: less beside the point, commoner words, shorter sentences.

Out go parentheticals (round brackets, and `-lrb- … -rrb-` of tokenised text) and boilerplate (markup, addresses, `read
more`, rights notices). Lexical simplification (Carroll et al. 1998; Paetzold & Specia 2017, a survey): a word below a
frequency becomes its most frequent close synonym, if that is at least eight times as common (wordfreq, Speer 2022);
close is what WordNet's tagged texts or the Chinese thesaurus call one sense. Syntactic simplification: a long sentence
ends at a semicolon, or at a comma behind which a clause with its own subject begins. No generator draws: the same text
always becomes the same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.input_side.clauses import divided
from bothways.input_side.lookup import WordSet, fold, word_hashes
from bothways.input_side.sentences import sentences
from bothways.input_side.synonyms import Thesaurus, capitalised_like, function_words
from bothways.input_side.transform import InputContext, Transform
from bothways.lexicons import close_synonyms, zipf
from bothways.registry import TRANSFORMS, Range
from bothways.seeding import F64
from bothways.text import Bools, Codes, Ints, TextBatch, decoded, encoded, kinds_of, spans

Part = Literal["parentheses", "boilerplate", "words", "sentences"]

_RAREST, _RANGE = 2.5, 2.0  # Zipf: words below _RAREST + strength * _RANGE are rare
_COMMONER = 0.9  # Zipf: what a synonym must be ahead by; a factor of eight
_COMMON = 3.5  # Zipf: what a synonym must have
_LONGEST, _LESS = 40, 24  # words: a sentence of more than _LONGEST - strength * _LESS is long
_COARSE = (
    "ass",
    "bastard",
    "bitch",
    "cock",
    "crap",
    "crappy",
    "dick",
    "fuck",
    "john",
    "piss",
    "pissed",
    "shit",
    "shitty",
)

_ROUND = r"(?<![A-Za-z0-9:;=8^])(?<![:;=]-)\((?=[^()\n]{2,200}(?<![:;=-])\)(?![A-Za-z0-9]))[^()\n]*\)"  # no smileys
_PARENTHESES = (  # (what occurs, in lower case, wherever the pattern does; the pattern)
    (("(",), _ROUND),
    (("（",), r"（[^（）\n]{2,200}）"),
    (("-lrb-",), r"-lrb- [^\n]{2,200}?-rrb-"),
)
_BOILERPLATE = (
    (("<",), r"</?[a-z][a-z0-9]{0,15}(?:[^\S\n][^<>\n]{0,200})?/?>"),
    (("://", "www."), r"\b(?:https?://|www\.)[^\s<>\"“”，。！？；（）\u00a0\u3000\u4e00-\u9fff]+"),
    (("@",), r"\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,8}\b"),
    ((" more",), r"[(\[]?\b(?:read|see|show|view|learn) more(?: ?(?:\.\.\.|…|»|>>|→))+[)\]]?"),
    ((" here",), r"[(\[]?\b(?:click|tap) here\b(?: (?:to|for) [^.!?\n]{1,60})?[.!]?[)\]]?"),
    (("sent from my",), r"\bsent from my (?:iphone|ipad|phone|mobile|android|blackberry|samsung)[^\n.]{0,30}\.?"),
    (("rights reserved",), r"(?:(?:\bcopyright\b|©)[^!?\n]{0,80})?\ball rights reserved\b\.?"),
    (("full review",), r"\bfull review\b(?: in [a-z]+)?(?: \|)?"),
    (("subscribe ", "sign up "), r"\b(?:please )?(?:subscribe|sign up) (?:to|for) (?:our|my) [^.!?\n]{1,40}[.!]?"),
    (("更多", "全文", "原文", "详情"), r"(?:点击)?(?:这里|此处)?(?:查看|阅读|展开)(?:更多|全文|原文|详情)[！!。…>»]*"),
    (("版权所有", "转载请"), r"(?:版权所有|转载请注明(?:出处|来源)?)[！!。]?"),
    (
        ("公众号",),
        r"(?:请?扫码|长按(?:识别)?(?:下方)?二维码|请?搜索)?请?关注(?:我们的?)?(?:微信)?公众号[^，。！？\n]{0,20}[。！!]?",
    ),
    (("自我的",), r"(?:发|来)自我的(?:iphone|ipad|手机|安卓)[^，。！？\n]{0,10}。?"),
    (("编辑",), r"[（(【\[]?责任编辑[:：][^\S\n]?[\u4e00-\u9fff]{2,4}[）)】\]]?"),
)
_ASIDES = {"parentheses": _PARENTHESES, "boilerplate": _BOILERPLATE}
_ARTICLES, _VOWELS = WordSet.of(["a", "an"]), encoded("aeiou")
_LOOSE = " \t\u3000,;，；、"


@TRANSFORMS.register("simplify")
class Simplify(Transform):
    """`strength`: how rare a word and how long a sentence may stay; anything above 0 also drops what is beside the
    point. `parts`: what is simplified. What holds a protected word is never dropped. Chinese words are those that jieba
    finds (the extra `bothways[zh]`)."""

    term: ClassVar[str] = "text simplification"
    source: ClassVar[str] = "Carroll et al. 1998; Paetzold & Specia 2017"
    train_only: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    strength: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 1.0)] = 0.5
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = ("parentheses", "boilerplate", "words", "sentences")

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        strength = np.full(len(batch), self.strength)
        if context.strength is not None:
            strength = strength * context.strength
        if not strength.any():
            return batch
        batch = self._without_asides(context.fresh(batch), context, strength > 0)
        if not {"words", "sentences"} & set(self.parts):
            return batch
        by_word = replace(context, segmentation="word") if context.language == "zh" else context
        read = by_word.read(batch.texts(), batch.keys) if by_word.segmentation != context.segmentation else batch
        if "words" in self.parts:
            read = _in_common_words(read, context.language, strength)
        if "sentences" in self.parts:
            read = divided(read, context.language, _LONGEST - strength * _LESS, strength > 0)
        return context.rewritten(batch, read.texts())

    def _without_asides(self, batch: TextBatch, context: InputContext, active: Bools) -> TextBatch:
        """Drops parentheticals and boilerplate, in rows of which words are left."""
        found = _asides(batch.lines(), self.parts)
        if not found:
            return batch
        first, stop, bracket = np.array(found, dtype=np.int64).T
        begin = np.searchsorted(batch.stops[:, 1], first, side="right")
        end = np.maximum(np.searchsorted(batch.starts[:, 1], stop), begin)
        row = batch.rows_of(np.minimum(begin, batch.kinds.size - 1))
        guarded = np.append(0, np.cumsum(batch.protected))
        takes = (guarded[end] == guarded[begin]) & active[row]
        takes &= (bracket == 0) | (begin > batch.offsets[row])  # in front of all, brackets often hold the subject
        first = np.where(first == batch.starts[begin, 1], batch.starts[begin, 0], first)  # with the gap before it
        kept = np.ones(batch.codes.size, dtype=bool)
        kept[spans(first[takes], stop[takes])] = False
        return context.rewritten(batch, _cut(batch, kept, np.unique(row[takes])))


def _cut(batch: TextBatch, kept: Bools, rows: Ints) -> list[str]:
    """The texts, and of `rows` what is kept, (codes,), unless no word is."""
    texts = batch.texts()
    begins = batch.starts[batch.offsets[rows], 0]
    for row, begin, end in zip(
        rows.tolist(), begins.tolist(), batch.stops[batch.offsets[rows + 1] - 1, 1], strict=True
    ):
        left = decoded(batch.codes[begin:end][kept[begin:end]])
        if not kept[begin]:
            left = left.lstrip(_LOOSE)
        if not kept[end - 1]:
            left = left.rstrip(_LOOSE)
        if any(map(str.isalnum, left)):
            texts[row] = left
    return texts


def _in_common_words(batch: TextBatch, language: str, strength: F64) -> TextBatch:
    """Rare words replaced by common ones; English words with a capital inside a sentence are names and stay."""
    book, commoner, frequency = _commoner(language)
    batch, found = sentences(batch)
    tokens = np.flatnonzero(batch.free)
    codes, lengths = batch.words(tokens)
    numbers = book.index.find(word_hashes(fold(codes), lengths))
    target = commoner[numbers]
    rare = frequency[numbers] < _RAREST + _RANGE * strength[batch.rows_of(tokens)]
    initial = batch.codes[batch.starts[tokens, 1]]
    name = (fold(initial) != initial) & ~np.isin(tokens, found.first)
    takes = (numbers >= 0) & (target >= 0) & rare & (strength[batch.rows_of(tokens)] > 0) & ~name
    takes[takes] &= _article_fits(batch, tokens[takes], book.codes[book.spelling[target[takes]]])
    tokens, target = tokens[takes], target[takes]
    codes, lengths = book.spelled(target)
    codes = capitalised_like(batch.codes[batch.starts[tokens, 1]], codes, lengths)
    return batch.replaced(tokens, codes, lengths, kinds_of(codes, lengths))


def _article_fits(batch: TextBatch, tokens: Ints, initials: Codes) -> Bools:
    """Whether words with other initials could stand behind the `a` or `an` before them, if there is one."""
    before = np.maximum(tokens - 1, 0)
    articles = batch.is_word[before] & (tokens > 0)
    articles[articles] &= _ARTICLES.holds(*batch.words(before[articles]))
    old = np.isin(fold(batch.codes[batch.starts[tokens, 1]]), _VOWELS)
    return np.asarray(~articles | (old == np.isin(initials, _VOWELS)))


@cache
def _commoner(language: str) -> tuple[Thesaurus, Ints, F64]:
    """The close synonyms; the one to take for each word, -1 for none, (n,); and how common each is (Zipf), (n,)."""
    table, frequency = close_synonyms(language), np.asarray(zipf(language), dtype=np.float64)
    book = Thesaurus.of(table)
    words = np.repeat(np.arange(frequency.size), np.diff(table.offsets))
    refused = book.refused | np.isin(table.words, [*function_words(), *_COARSE])
    refused |= (np.strings.str_len(table.words) < 3) & (table.words < "\u2e80")
    least = np.maximum(frequency[words] + _COMMONER, _COMMON)
    fits = (frequency[table.candidates] >= least) & ~refused[table.candidates]
    words, candidates = words[fits], np.asarray(table.candidates[fits], dtype=np.int64)
    order = np.argsort(frequency[candidates], kind="stable")
    commoner = np.full(frequency.size, -1)
    commoner[words[order]] = candidates[order]  # of several, the last is the most frequent
    return book, commoner, frequency


def _asides(flat: str, parts: tuple[Part, ...]) -> list[tuple[int, int, bool]]:
    """What is beside the point: from where to where, in the code points of a batch, and whether in brackets."""
    found: list[tuple[int, int, bool]] = []
    lower = flat.lower()
    for part in parts:
        for signs, pattern in _ASIDES.get(part, ()):
            if any(sign in lower for sign in signs):
                found += [(*match.span(), part == "parentheses") for match in _compiled(pattern).finditer(flat)]
    return found


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.ASCII)  # ASCII: a Chinese character ends a word
