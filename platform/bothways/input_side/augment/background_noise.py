"""Background noise: with probability p, in front of each word and at the row's end, something that says nothing.

What web text is full of: stray symbols, left-over markup and entities, emoji, links. No piece holds an opinion: there
are no faces, hearts or thumbs among the emoji and no words in the links, so that the label stays what it was. It is
insertion as nlpaug (Ma 2019) and AEDA (Karimi et al. 2021) do it, of other material.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from bothways.input_side.transform import InputContext, Transform, again, draw
from bothways.registry import TRANSFORMS, Range
from bothways.seeding import below, streams
from bothways.text import Bools, Bytes, Codes, Ints, TextBatch, encoded, kinds_of, ragged

Kind = Literal["symbol", "markup", "emoji", "url"]
_HOLE = "\uffff"  # in a link, where a random letter or digit belongs
_ALPHABET = encoded("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_EMOJI = "📌 📎 🔗 📷 🎬 🎥 📺 🎧 🎫 🍿 🕒 📅 🌐 🔎 🔔 📖 📍 🎲 🏠 🚗 🚇 🐈 🌙 🔹"
_PIECES: dict[str, dict[Kind, str]] = {
    "en": {
        "symbol": "* # ~ ^ | = + \\ @ % *** ### ~~ --- ___ == || // • » § ¶",
        "markup": "<br> <br/> </p> <p> </div> <li> </a> &nbsp; &quot; &#160; &gt; ** [img] [/quote] [url] >>",
        "emoji": _EMOJI,
        "url": f"https://t.co/{_HOLE * 8} http://bit.ly/{_HOLE * 7} www.{_HOLE * 6}.com https://youtu.be/{_HOLE * 11}",
    },
    "zh": {
        "symbol": "＊ ＃ ～ ｜ ＝ ＋ ＠ ★ ☆ ※ ◆ ● ■ → ▲ ～～ ＊＊＊ ＝＝ —— ··· // >>",
        "markup": "<br> <br/> </p> <p> </div> &nbsp; &quot; &#12288; &gt; ** [图片] [视频] [表情] 【图】 [链接] //@",
        "emoji": _EMOJI,
        # In brackets: without a space after it, a link would go on into the words behind it.
        "url": f"（http://t.cn/{_HOLE * 7}） <http://t.cn/{_HOLE * 7}> （b23.tv/{_HOLE * 6}） （www.{_HOLE * 6}.cn）",
    },
}


class _Table(NamedTuple):
    """Pieces one after the other: `codes`; where each begins, its length, holes and token kind, (N,). Those of the i-th
    kind of noise are `first[i]` up to `first[i] + counts[i]`."""

    codes: Codes
    starts: Ints
    lengths: Ints
    holes: Ints
    kinds: Bytes
    first: Ints
    counts: Ints


@cache
def _table(language: str, kinds: tuple[Kind, ...]) -> _Table:
    groups = [_PIECES[language][kind].split() for kind in kinds]
    pieces = [piece for group in groups for piece in group]
    codes = encoded("".join(pieces)).astype(np.uint32)
    lengths, counts = np.array([len(p) for p in pieces]), np.array([len(g) for g in groups])
    holes = np.array([piece.count(_HOLE) for piece in pieces])
    starts, first = np.cumsum(lengths) - lengths, np.cumsum(counts) - counts
    return _Table(codes, starts, lengths, holes, kinds_of(codes, lengths), first, counts)


@TRANSFORMS.register("background_noise")
class BackgroundNoise(Transform):
    """`p`: pieces of noise per word. `kinds`: what they are; each piece draws one."""

    term: ClassVar[str] = "background noise (symbols, markup, emoji, links)"
    source: ClassVar[str] = "Ma 2019, nlpaug; Karimi et al. 2021, AEDA"
    neutral: ClassVar[dict[str, Any]] = {"p": 0.0}

    p: Annotated[float, Field(ge=0.0, le=1.0), Range(0.0, 0.3)] = 0.1
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("symbol", "markup", "emoji", "url")

    def __call__(self, batch: TextBatch, context: InputContext) -> TextBatch:
        drawn = draw(batch, context, self.p, _places(batch))
        before = drawn.tokens
        if not before.size:
            return batch
        bits = drawn.bits[before]
        table = _table(context.language, self.kinds)
        kind = below(again(bits, "kind"), len(self.kinds))
        piece = table.first[kind] + below(again(bits, "piece"), table.counts[kind])
        lengths = table.lengths[piece]
        codes = table.codes[ragged(table.starts[piece], lengths)]
        letters = streams(again(bits, "letter"), table.holes[piece])
        codes[codes == ord(_HOLE)] = _ALPHABET[below(letters, _ALPHABET.size)]
        return batch.inserted(before, codes, lengths, table.kinds[piece])


def _places(batch: TextBatch) -> Bools:
    """The tokens in front of which noise may stand: words, and the ends of rows that have words. Not beside protected
    words: what comes between `not` and its verb, or a number and its unit, could change what is said."""
    places = batch.free.copy()
    places[1:] &= ~batch.protected[:-1]
    places[batch.offsets[1:] - 1] = batch.per_row(batch.is_word) > 0
    return places
