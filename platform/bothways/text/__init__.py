"""A batch of texts as flat arrays: cut into words once, changed by arithmetic, put together exactly.

A batch is one array of code points. A token is two spans of it: the gap before a word (white space, or nothing) and
the word; every row closes with an end token, whose gap is the row's trailing white space and whose word is empty.
Deleting, swapping, inserting and substituting move spans, never characters; new words are appended to the array. What
was not changed is given back as it came in.

Words: runs of letters and digits, with apostrophes, hyphens and dots inside them (`don't`, `re-imagining`, `1.2.3`) and
clitics (`'s`); each CJK character, each emoji (with its modifiers and joiners); runs of punctuation are tokens, not
words. The rules do not depend on the language, so that mixed text needs no decision.
"""

from bothways.text.arrays import gathered, ragged, spans, true_at
from bothways.text.batch import TextBatch
from bothways.text.characters import (
    END,
    FLAG,
    IDEOGRAPH,
    LETTER,
    MARK,
    PUNCTUATION,
    SPACE,
    SYMBOL,
    Bools,
    Bytes,
    Codes,
    Ints,
    classes_of,
    decoded,
    encoded,
    kinds_of,
)
from bothways.text.moving import moved
from bothways.text.segmentation import Segmentation

__all__ = [
    "END",
    "FLAG",
    "IDEOGRAPH",
    "LETTER",
    "MARK",
    "PUNCTUATION",
    "SPACE",
    "SYMBOL",
    "Bools",
    "Bytes",
    "Codes",
    "Ints",
    "Segmentation",
    "TextBatch",
    "classes_of",
    "decoded",
    "encoded",
    "gathered",
    "kinds_of",
    "moved",
    "ragged",
    "spans",
    "true_at",
]
