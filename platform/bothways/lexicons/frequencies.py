"""How common the words of the synonym tables are, from wordfreq's corpora of seven to eight kinds of text."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bothways.assets import root
from bothways.assets.files import build_once
from bothways.errors import UserError
from bothways.lexicons.tables import close_folder, close_synonyms

_LAYOUT = 1  # raise it when what a table holds changes, and it is built again


@cache
def zipf(language: str) -> npt.NDArray[np.float32]:
    """The Zipf frequency (van Heuven et al. 2014) of each word of `close_synonyms(language)`, (n,), memory-mapped.

    It is log10 of occurrences in a thousand million words; 0 for a word that wordfreq (Speer 2022) does not know.
    Raises `UserError` where wordfreq is not installed.
    """
    try:
        release = version("wordfreq")
    except PackageNotFoundError:
        raise UserError("word frequencies need the package wordfreq: pip install wordfreq") from None

    def build(work: Path) -> None:
        from wordfreq import freq_to_zipf, get_frequency_dict  # a quarter of a second, once per cache

        known = get_frequency_dict(language, wordlist="large")
        shares = (known.get(word.lower()) for word in close_synonyms(language).words.tolist())
        values = [freq_to_zipf(share) if share else 0.0 for share in shares]
        np.save(work / "zipf.npy", np.array(values, dtype=np.float32), allow_pickle=False)

    folder = root() / "lexicons" / f"{close_folder(language)}-zipf-{release}-{_LAYOUT}"
    found: npt.NDArray[np.float32] = np.load(build_once(folder, build) / "zipf.npy", mmap_mode="r", allow_pickle=False)
    return found
