"""From the members of a package to the files an asset is used by."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

_SYNTACTIC_CATEGORY = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


def wordnet_lexnames(folder: Path) -> None:
    """Writes `lexnames` (number, file name, category), which nltk asks for and only the manual page contains."""
    page = folder / "lexnames.5WN.gz"
    rows = re.findall(r"^(\d\d)\t((noun|verb|adj|adv)\.\w+)", gzip.decompress(page.read_bytes()).decode(), re.M)
    text = "".join(f"{number}\t{name}\t{_SYNTACTIC_CATEGORY[part]}\n" for number, name, part in rows)
    (folder / "corpora" / "wordnet" / "lexnames").write_text(text, encoding="ascii")
    page.unlink()
