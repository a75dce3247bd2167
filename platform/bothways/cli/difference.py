"""What changed between two texts, word by word, for people: coloured on a terminal, in marks elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from rich.text import Text

from bothways.text import PUNCTUATION, Segmentation, TextBatch, decoded

MOST_PIECES = 1000
"""Words and gaps of a text that are compared: the comparison's time grows with their square."""
GONE, NEW = "red strike", "bold green"
_JOINING = "\u200c\u200d"  # invisible, but emoji and scripts are written with them


@dataclass(frozen=True)
class Change:
    """A part of both texts: `old` and `new` are equal where nothing changed."""

    old: str
    new: str

    @property
    def same(self) -> bool:
        return self.old == self.new


def changes(old: str, new: str, segmentation: Segmentation = "character") -> list[Change]:
    """Both texts in order, cut into equal and different parts. White space alone does not part two differences."""
    before, after = (_pieces(text, segmentation) for text in (old, new))
    found: list[Change] = []
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        change = Change("".join(before[a:b]), "".join(after[c:d]))
        if kind == "equal":
            found.append(change)
        elif len(found) > 1 and found[-1].same and found[-1].old.isspace():
            gap, last = found.pop(), found.pop()
            found.append(Change(last.old + gap.old + change.old, last.new + gap.new + change.new))
        else:
            found.append(change)
    return found


def _pieces(text: str, segmentation: Segmentation) -> list[str]:
    """Words, marks of punctuation and the gaps between them; the rest in one piece where there are very many."""
    batch = TextBatch.from_texts([text], None, segmentation)
    pieces: list[str] = []
    for (gap, start), (_, stop), kind in zip(batch.starts.tolist(), batch.stops.tolist(), batch.kinds, strict=True):
        word = decoded(batch.codes[start:stop])
        pieces += [decoded(batch.codes[gap:start]), *(word if kind == PUNCTUATION else [word])]
    pieces = [piece for piece in pieces if piece]
    return [*pieces[:MOST_PIECES], *(["".join(pieces[MOST_PIECES:])] if len(pieces) > MOST_PIECES else [])]


def printable(text: str) -> str:
    """The text on one line, with what a terminal would obey or not show written as escapes."""
    return "".join(c if c.isprintable() or c in _JOINING else repr(c)[1:-1] for c in text)


def coloured(found: list[Change], limit: int) -> tuple[Text, Text]:
    """The old text with what is gone, and the new one with what is new; each of at most about `limit` characters."""
    sides = Text(), Text()
    for change in found:
        for side, part, style in zip(sides, (change.old, change.new), (GONE, NEW), strict=True):
            side.append(printable(part), "" if change.same else style)
    for side in sides:
        if len(side) > limit:
            rest = len(side) - limit
            side.truncate(limit)
            side.append(f"… {rest:,} more", "dim")
    return sides


def marked(found: list[Change], limit: int) -> str:
    """The new text with [-what is gone-] and {+what is new+}, of at most about `limit` characters."""
    line = "".join(_marks(found))
    return line if len(line) <= limit else f"{line[:limit]}… {len(line) - limit:,} more"


def _marks(found: list[Change]) -> Iterator[str]:
    for change in found:
        if change.same:
            yield printable(change.old)
            continue
        if change.old:
            yield f"[-{printable(change.old)}-]"
        if change.new:
            yield f"{{+{printable(change.new)}+}}"
