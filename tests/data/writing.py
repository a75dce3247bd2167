"""Small data files, and the one line a user reads about a broken one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bothways.errors import UserError

WORDS = ["plot", "actor", "scene", "score", "pace", "joke", "fight", "ending", "script", "camera", "light", "sound"]


def texts(n: int, start: int = 0) -> list[str]:
    """`n` different texts."""
    return [f"the {WORDS[i % 12]} of film {i} is {WORDS[i // 12 % 12]}" for i in range(start, start + n)]


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> str:
    """A csv file of rows without commas and quotes; its path as a source."""
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return str(path)


def labelled(n: int, classes: int = 2, start: int = 0) -> list[tuple[str, str]]:
    """`n` different texts whose labels `c0`, `c1`, … take turns."""
    return [(text, f"c{i % classes}") for i, text in enumerate(texts(n, start))]


def message(action: Callable[[], object]) -> str:
    """The text of the `UserError` that `action` must raise: always one line."""
    with pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text
