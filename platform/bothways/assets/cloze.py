"""Questions with a gap, and passages in which the word stands that was taken out: cloze (Taylor 1953), made as Hermann
et al. (2015) make them of articles and their summaries.

The question is a Debian package's summary in a line, the passage its description, which somebody wrote to say the same
at length. What is taken out is the rarest word of the summary that the description has once, with the words beside it
that stand there too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bothways.assets.catalogues import described, read, sources, stanzas, write_splits
from bothways.assets.corpora import Row

GAP = "___"
RARE = 0.005
"""Of all descriptions: a word in more of them is not asked for."""
TELLING = 0.05
"""A word in more of them does not tell what a question is about."""
SHORTEST, LONGEST = 25, 250
"""Words of a passage."""
LEFT = 4
"""Words of a question beside the gap, at least."""
SHARED = 2
"""Telling ones of them that the passage has as well, at least."""
_WORD = re.compile(r"[^\W_](?:[\w+#.'/-]*[\w+#])?")


@dataclass(frozen=True)
class Word:
    """A word of a text in lower case, and where it stands."""

    text: str
    start: int
    stop: int


def words(text: str) -> list[Word]:
    return [Word(found[0].lower(), found.start(), found.end()) for found in _WORD.finditer(text)]


def debian_cloze(folder: Path) -> None:
    """`question`, `passage`, and the `label` as SQuAD writes it; one for each source package at most."""
    of_digest = sources(folder)
    found: list[tuple[str, str, str, str]] = []
    for stanza in stanzas(read(folder, "Translation-en.xz")):
        summary, text = described(stanza, "en")
        if stanza["Description-md5"] in of_digest and SHORTEST <= len(text.split()) <= LONGEST:
            found.append((of_digest[stanza["Description-md5"]][0], stanza["Package"], summary, text))
    counts = Counter(word for *_, text in found for word in {word.text for word in words(text)})

    def share(word: str) -> float:
        return counts[word] / len(found)

    rows: list[Row] = []
    asked: set[str] = set()
    for source, package, summary, text in found:
        if source in asked or text in asked:
            continue
        names = {part for name in (source, package) for part in (name, *name.split("-"))}
        if (made := cloze(summary, text, share, names)) is not None:
            question, start, stop = made
            label = {"text": [text[start:stop]], "answer_start": [start]}
            rows.append({"question": question, "passage": text, "label": label, "source": source})
            asked |= {source, text}
    write_splits(folder, rows)


def cloze(summary: str, text: str, share: Callable[[str], float], names: set[str]) -> tuple[str, int, int] | None:
    """The summary with a gap, and where in the text stands what was taken out; None where that makes no question.

    `share`: of how many descriptions have a word. `names`: what is never taken out.
    """
    line, passage = words(summary), words(text)
    in_line, in_passage = Counter(word.text for word in line), Counter(word.text for word in passage)
    place = {word.text: at for at, word in enumerate(passage)}

    def can_go(word: Word) -> bool:
        return (
            in_line[word.text] == in_passage[word.text] == 1
            and share(word.text) <= RARE
            and len(word.text) > 2
            and word.text not in names
        )

    fit = [at for at, word in enumerate(line) if can_go(word)]
    if not fit:
        return None
    first = last = min(fit, key=lambda at: share(line[at].text))

    def joined(at: int) -> bool:
        """Whether word `at` and the next stand together in both."""
        here = place[line[at].text]
        if place[line[at + 1].text] != here + 1:
            return False
        both = (summary, line[at], line[at + 1]), (text, passage[here], passage[here + 1])
        return all(whole[left.stop : right.start] in (" ", "-") for whole, left, right in both)

    while first - 1 in fit and joined(first - 1):
        first -= 1
    while last + 1 in fit and joined(last):
        last += 1
    left = [word.text for word in (*line[:first], *line[last + 1 :])]
    shared = {word for word in left if in_passage[word] and share(word) <= TELLING}
    if len(left) < LEFT or len(shared) < SHARED:
        return None
    question = summary[: line[first].start] + GAP + summary[line[last].stop :]
    return question, passage[place[line[first].text]].start, passage[place[line[last].text]].stop
