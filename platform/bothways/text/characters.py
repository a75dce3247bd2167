"""Characters as numbers: code points, and the class each belongs to."""

from __future__ import annotations

from functools import cache
from unicodedata import category

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8 | np.uint32]
Ints = npt.NDArray[np.int64]

# Classes of characters, and kinds of tokens: a word is odd. The last four never survive segmentation; a joiner is
# punctuation with a bit of its own, so that dropping the bit drops the joining.
SPACE, LETTER, PUNCTUATION, IDEOGRAPH, END, SYMBOL, FLAG = 0, 1, 2, 3, 4, 5, 7
JOINER, NUMBER_JOINER, MARK, ZWJ = 8 | PUNCTUATION, 16 | PUNCTUATION, 32, 64
KIND = 7

_APOSTROPHES = "'’"
_JOINERS = _APOSTROPHES + "-‐‑_.&@·\u00ad"
_NUMBER_JOINERS = ",:/"
_CJK = (
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3031, 0x3035),
    (0x3041, 0x3096),  # hiragana
    (0x309D, 0x309F),
    (0x30A1, 0x30FA),  # katakana
    (0x30FC, 0x30FF),
    (0x3105, 0x312F),
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)


def _class_of(character: str) -> int:
    if character.isspace():
        return SPACE
    if character in _JOINERS:
        return JOINER
    if character in _NUMBER_JOINERS:
        return NUMBER_JOINER
    kind = category(character)
    if kind[0] in "LN":
        return LETTER
    if kind[0] == "M" or 0x1F3FB <= ord(character) <= 0x1F3FF or 0xE0020 <= ord(character) <= 0xE007F:
        return MARK
    if kind == "So" and ord(character) > 0xFF:  # ©, ® and ° keep Latin-1 text free of symbols
        return FLAG if 0x1F1E6 <= ord(character) <= 0x1F1FF else SYMBOL
    return PUNCTUATION


@cache
def _classes() -> Bytes:
    """The class of every code point, (0x110000,) uint8. 40 ms, once per process."""
    table = np.full(0x110000, PUNCTUATION, dtype=np.uint8)
    for first, last in ((0, 0x31FFF), (0xE0000, 0xE01EF)):  # elsewhere: ideographs, private use, nothing
        table[first : last + 1] = [_class_of(chr(code)) for code in range(first, last + 1)]
    for first, last in _CJK:
        table[first : last + 1] = IDEOGRAPH
    table[[0x200C, 0x200D]] = MARK, ZWJ
    table.flags.writeable = False
    return table


@cache
def _latin_classes() -> bytes:
    """The first 256 of `_classes`, for `bytes.translate`: the fastest look-up there is."""
    return bytes(_class_of(chr(code)) for code in range(256))


def encoded(text: str) -> Codes:
    """The code points of a text: uint8 when all are below 256, else uint32 (lone surrogates included)."""
    try:
        return np.frombuffer(text.encode("latin-1"), dtype=np.uint8)
    except UnicodeEncodeError:
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def decoded(codes: Codes) -> str:
    """The text of code points; the inverse of `encoded`."""
    if codes.dtype == np.uint8:
        return codes.tobytes().decode("latin-1")
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def classes_of(codes: Codes) -> Bytes:
    """The class of every character, (N,) uint8, writable."""
    wide = codes > 0xFF if codes.dtype != np.uint8 else None
    if wide is not None and 4 * np.count_nonzero(wide) > codes.size:
        return np.take(_classes(), codes)
    low = bytearray(codes.astype(np.uint8, copy=False).data)
    classes = np.frombuffer(low.translate(_latin_classes()), dtype=np.uint8)
    if wide is not None:
        high = np.flatnonzero(wide)
        classes[high] = _classes()[codes[high]]
    return classes


def kinds_of(codes: Codes, lengths: Ints) -> Bytes:
    """The token kind of each word: the class of its first character, (K,)."""
    first: Bytes = classes_of(codes)[np.cumsum(lengths) - lengths]
    first &= KIND
    first[first == SPACE] = PUNCTUATION
    return first
