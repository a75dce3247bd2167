"""Questions with a gap out of Debian's package index."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from bothways.assets import cloze, readers

COMMON = {"a": 0.9, "of": 0.9, "the": 0.9, "for": 0.8, "game": 0.04, "board": 0.03, "play": 0.03, "window": 0.004}
CHESS = "With this program you play the game Real-Time Chess, on a board of 64 fields in a window or a terminal."


def share(word: str) -> float:
    return COMMON.get(word, 0.001)


@pytest.mark.parametrize(
    ("summary", "question", "answer"),
    [
        ("play the board game Chess in a window", "play the board game ___ in a window", "Chess"),
        # What stands beside it in both goes with it; a hyphen keeps a word together.
        ("play the board game real-time chess", "play the board game ___", "Real-Time Chess"),
        (
            "the board game terminal chess to play",
            "the board game ___ chess to play",
            "terminal",
        ),  # first of the rarest
        ("play the board game go", None, None),  # nothing of the description
        ("play on a board in a board window", "play on a board in a board ___", "window"),
        ("play the chess board", None, None),  # too little is left
        ("something else for terminal users", None, None),  # nothing says that this is the passage
    ],
)
def test_the_rarest_word_that_the_description_has_once_is_asked_for(
    summary: str, question: str | None, answer: str | None
) -> None:
    found = cloze.cloze(summary, CHESS, share, {"xchess"})
    assert (found and found[0]) == question
    assert (found and CHESS[found[1] : found[2]]) == answer


def test_a_name_of_the_package_is_not_asked_for_nor_what_stands_there_twice() -> None:
    summary = "play the board game Chess in a window"
    assert cloze.cloze(summary, CHESS, share, {"chess"}) == (
        "play the board game Chess in a ___",
        CHESS.index("window"),
        CHESS.index("window") + 6,
    )
    again = f"{CHESS} Windows are closed when the window is."
    assert cloze.cloze(summary, again, share, {"chess"}) is None


def test_a_source_package_asks_once_and_its_answer_stands_in_the_passage(tmp_path: Path) -> None:
    packages, english = [], []
    for number in range(300):
        digest, source = f"{number:x}", f"source{number // 2}"
        packages.append(f"Package: p{number}\nDescription-md5: {digest}\nSection: misc\nSource: {source}\n\n")
        text = f"This is what players of rook{number} wanted: the board, the game and {'very ' * 12} many more fields."
        english.append(
            f"Package: p{number}\nDescription-md5: {digest}\n"
            f"Description-en: board game for players{number} of rook{number}, with fields\n {text}\n\n"
        )
    # In three descriptions of a hundred "board" would be too common to tell anything.
    other = " ".join(["none of those words here, but enough to be read as a passage, again and"] * 2)
    for number in range(300, 7000):
        digest = f"{number:x}"
        packages.append(f"Package: p{number}\nDescription-md5: {digest}\nSection: misc\n\n")
        english.append(f"Package: p{number}\nDescription-md5: {digest}\nDescription-en: s\n {other} {number}\n\n")
    (tmp_path / "Packages.xz").write_bytes(lzma.compress("".join(packages).encode(), preset=0))
    (tmp_path / "Translation-en.xz").write_bytes(lzma.compress("".join(english).encode(), preset=0))
    cloze.debian_cloze(tmp_path)
    rows = [json.loads(line) for file in sorted(tmp_path.glob("*.jsonl")) for line in file.open(encoding="utf-8")]
    assert len(rows) == len({row["source"] for row in rows}) == 150
    for row in rows:
        (answer,), (start,) = row["label"]["text"], row["label"]["answer_start"]
        assert row["passage"][start : start + len(answer)] == answer
        assert answer.startswith("rook") and answer not in row["question"] and cloze.GAP in row["question"]
    read = readers.json_lines(tmp_path, text="question", pair="passage")
    assert sorted(read) == ["selection", "test", "train"]
    assert sum(len(part) for part in read.values()) == 150 and len(read["train"]) > 100
    assert all(label["text"][0] in passage for part in read.values() for _, passage, label in part)
