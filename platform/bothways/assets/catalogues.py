"""Texts with targets out of software catalogues: Debian's package index, and the messages of a user interface.

Rows have `text`, `target` (what is to be written from it) and `label` (the topic, or the kind of text), and `source`,
what they belong to.
"""

from __future__ import annotations

import bz2
import gettext
import lzma
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bothways.assets.corpora import Row, write
from bothways.seeding import below, keys

_PACKAGES, _ENGLISH, _CHINESE = "Packages.xz", "Translation-en.xz", "Translation-zh_CN.bz2"
_SPLITS = ("test", "selection", *["train"] * 8)

Stanza = dict[str, str]


def stanzas(text: str) -> Iterator[Stanza]:
    """The records of a Debian control file: field → value, whose further lines begin with a space."""
    for block in text.split("\n\n"):
        stanza: Stanza = {}
        key = ""
        for line in block.split("\n"):
            if line.startswith(" ") and key:
                stanza[key] += f"\n{line}"
            elif line:
                key, _, value = line.partition(":")
                stanza[key] = value.strip()
        if stanza:
            yield stanza


def prose(body: str) -> str:
    """A description without its line breaks: a paragraph a line, and a line for each that was indented further."""
    lines: list[str] = []
    begins = True
    for line in body.split("\n"):
        content = " ".join(line.split())
        if content in ("", "."):
            begins = True
        elif begins or line.startswith(("  ", " \t")):
            lines.append(content)
            begins = False
        else:
            lines[-1] += content if _is_wide(lines[-1][-1]) or _is_wide(content[0]) else f" {content}"
    return "\n".join(lines)


def _is_wide(character: str) -> bool:
    """Of Chinese and its punctuation, which has no spaces between words."""
    return "\u2e80" <= character <= "\uffef"


def read(folder: Path, name: str) -> str:
    """A file of the index as text."""
    opened = lzma.open if name.endswith(".xz") else bz2.open
    with opened(folder / name, "rt", encoding="utf-8") as file:
        return str(file.read())


def described(stanza: Stanza, language: str) -> tuple[str, str]:
    """Summary and description."""
    summary, _, body = stanza[f"Description-{language}"].partition("\n")
    return summary.strip(), prose(body)


@cache
def _split(source: str) -> str:
    """A source package is whole in one split: what is built from it is described in nearly the same words."""
    return _SPLITS[int(below(keys("split", source), len(_SPLITS))[0])]


def write_splits(folder: Path, rows: list[Row]) -> None:
    """The rows by the split of their `source`; what they were made of is removed."""
    for split in ("train", "selection", "test"):
        write(folder, split, (row for row in rows if _split(row["source"]) == split))
    for name in (_PACKAGES, _ENGLISH, _CHINESE):
        (folder / name).unlink(missing_ok=True)


def sources(folder: Path) -> dict[str, tuple[str, str]]:
    """Digest of a description → (source package, section) of the first package that has it."""
    found: dict[str, tuple[str, str]] = {}
    for stanza in stanzas(read(folder, _PACKAGES)):
        source = stanza.get("Source", stanza["Package"]).partition(" ")[0]
        found.setdefault(stanza["Description-md5"], (source, stanza["Section"]))
    return found


def debian_summaries(folder: Path) -> None:
    """What a package is for, at length; the target is the same in a line, the label its section. Every text once."""
    of_digest, seen = sources(folder), set()
    rows: list[Row] = []
    for stanza in stanzas(read(folder, _ENGLISH)):
        summary, text = described(stanza, "en")
        if text and summary and text not in seen and stanza["Description-md5"] in of_digest:
            seen.add(text)
            source, section = of_digest[stanza["Description-md5"]]
            rows.append({"text": text, "label": section, "target": summary, "source": source})
    write_splits(folder, rows)


def debian_zh(folder: Path) -> None:
    """English summaries and descriptions with their Chinese translations, the label says which of the two it is; the
    text is in a field of that name as well.

    Only translations of the text as it now is: they name it by its digest. What was left in English is left out.
    """
    english = {stanza["Description-md5"]: stanza for stanza in stanzas(read(folder, _ENGLISH))}
    of_digest, seen = sources(folder), set()
    rows: list[Row] = []
    for stanza in stanzas(read(folder, _CHINESE)):
        digest = stanza["Description-md5"]
        if digest not in english or digest not in of_digest:
            continue
        pairs = zip(described(english[digest], "en"), described(stanza, "zh_CN"), strict=True)
        for label, (text, target) in zip(("summary", "description"), pairs, strict=True):
            if text and re.search("[\u4e00-\u9fff]", target) and (text, target) not in seen:
                seen.add((text, target))
                source = of_digest[digest][0]
                rows.append({"text": text, "label": label, "target": target, "source": source, label: text})
    write_splits(folder, rows)


def django_messages(folder: Path) -> None:
    """English messages with their Chinese translations, in files named after the part of Django they are of.

    A placeholder such as `%(name)s` stands in both. What is told apart only by a context for translators may have one
    text with two targets. In Chinese, a plural is the same as the singular.
    """
    seen = set()
    rows: list[Row] = []
    for file in sorted(folder.glob("*.mo")):
        with file.open("rb") as opened:
            catalogue: dict[str | tuple[str, int], str] = gettext.GNUTranslations(opened)._catalog  # type: ignore[attr-defined]
        for key, translation in catalogue.items():
            text = (key if isinstance(key, str) else key[0]).rpartition("\x04")[2].strip()
            target, part = translation.strip(), file.stem.partition("-")[0]
            if text and target and (text, target) not in seen:
                seen.add((text, target))
                rows.append({"text": text, "label": part, "target": target, "source": part})
        file.unlink()
    write(folder, "train", rows)
