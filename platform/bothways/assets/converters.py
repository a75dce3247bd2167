"""From the members of a package to the files an asset is used by."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bothways.errors import UserError

_SYNTACTIC_CATEGORY = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


@contextmanager
def needs(library: str) -> Iterator[None]:
    """Around the import of a library that only making an asset asks for. Raises `UserError` when there is none."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"this asset's files are made with {library}; install the extra `bothways[assets]`") from error


def wordnet_lexnames(folder: Path) -> None:
    """Writes `lexnames` (number, file name, category), which nltk asks for and only the manual page contains."""
    page = folder / "lexnames.5WN.gz"
    rows = re.findall(r"^(\d\d)\t((noun|verb|adj|adv)\.\w+)", gzip.decompress(page.read_bytes()).decode(), re.M)
    text = "".join(f"{number}\t{name}\t{_SYNTACTIC_CATEGORY[part]}\n" for number, name, part in rows)
    (folder / "corpora" / "wordnet" / "lexnames").write_text(text, encoding="ascii")
    page.unlink()


def word_list(folder: Path) -> None:
    """Writes `words.txt`, a word a line, from the only column of `words.parquet`."""
    import pyarrow.parquet as pq

    words = pq.read_table(folder / "words.parquet").column(0).to_pylist()
    (folder / "words.txt").write_text("\n".join(words), encoding="utf-8")
    (folder / "words.parquet").unlink()
