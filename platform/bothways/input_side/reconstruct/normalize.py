"""Normalisation: one way of writing what can be written in several.

In this order: HTML entities, Unicode NFKC (Unicode Standard Annex 15) or only full-width → half-width forms,
traditional → simplified Chinese (OpenCC), white space.
"""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any, ClassVar
from unicodedata import is_normalized, normalize

from bothways.errors import UserError
from bothways.input_side.transform import InputContext, Transform
from bothways.registry import TRANSFORMS
from bothways.text import TextBatch

_SURROGATE = re.compile("[\ud800-\udfff]")  # OpenCC reads UTF-8, which has none
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


@TRANSFORMS.register("normalize")
class Normalize(Transform):
    """`html`: entities become characters. `nfkc`: compatibility characters become plain, accents composed. `width`:
    full-width letters, digits and marks become half-width (NFKC does it too). `simplified`: traditional Chinese becomes
    simplified (the extra `bothways[zh]`). `whitespace`: runs become one space, none at the ends."""

    term: ClassVar[str] = "text normalisation"
    source: ClassVar[str] = "Unicode Standard Annex 15; OpenCC"
    train_only: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any]] = {
        "html": False,
        "nfkc": False,
        "width": False,
        "simplified": False,
        "whitespace": False,
    }

    html: bool = True
    nfkc: bool = True
    width: bool = True
    simplified: bool = False
    whitespace: bool = True

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        texts = batch.texts()
        for row in context.active(batch).tolist():
            texts[row] = self._normalized(texts[row])
        return context.rewritten(batch, texts)

    def _normalized(self, text: str) -> str:
        if self.html and "&" in text:
            text = html.unescape(text)
        if not text.isascii():
            if self.nfkc and not is_normalized("NFKC", text):
                text = normalize("NFKC", text)
            elif self.width:
                text = text.translate(_HALF_WIDTH)
            if self.simplified and not _SURROGATE.search(text):
                text = _converter().convert(text)
        return " ".join(text.split()) if self.whitespace else text


@cache
def _converter() -> Any:
    try:
        import opencc
    except ImportError:
        raise UserError("normalize: simplified needs opencc; install the extra `bothways[zh]`") from None
    return opencc.OpenCC("t2s")
