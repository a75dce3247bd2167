"""Token classification: a class for each word of a text, such as its part of speech or its part in a name (IOB tags).

L = mean over a row's words of -log p(tag), read at each word's first token; its other tokens have no label.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from bothways.contracts import NO_LABEL, Batch
from bothways.lazy import torch
from bothways.registry import TASKS
from bothways.task_contract import Architecture, Bools, Prediction, Reader, Unusable
from bothways.tasks import Directions, f1, some
from bothways.tasks._tokens import TokenTask, token_sums
from bothways.text import IDEOGRAPH, TextBatch, encoded, kinds_of

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

OUTSIDE = "O"


@TASKS.register("token_classification")
class TokenClassification(TokenTask):
    """A text cell is a list of words, or a text with spaces between them; its label cell, as many tags, likewise.

    Words become one text, with spaces except beside Chinese characters. Tags go with their words when an augmentation
    moves them; what it puts in, has none. Names are spared, and a change that tears one apart is refused.
    """

    term = "token classification: named entities, parts of speech"
    source = "IOB tags, Ramshaw & Marcus 1995; first tokens, Devlin et al. 2019"
    places: ClassVar[Literal["text", "pair"] | None] = "text"
    fewest_classes: ClassVar[int] = 2
    score: ClassVar[str] = "accuracy of a row's words"
    ranking: ClassVar[tuple[str, ...]] = ("accuracy", "log_loss")

    @property
    def directions(self) -> Directions:
        return {"accuracy": "max", "macro_f1": "max", "log_loss": "min"}

    def architecture(self, classes: tuple[str, ...]) -> Architecture:
        return Architecture(auto=("AutoModelForTokenClassification",), settings=(("num_labels", len(classes)),))

    def read(self, texts: list[Any], cell: Any) -> tuple[list[Any], str]:
        """The label is a JSON list of [start, stop, tag], a word each."""
        if len(texts) > 1:
            raise Unusable("a pair of texts where words of one text belong")
        words, tags = _list(texts[0], "words"), _list(cell, "tags")
        if len(words) != len(tags):
            raise Unusable(f"{len(words)} words, but {len(tags)} tags")
        if not words:
            raise Unusable("empty text")
        text, places = _joined(words)
        return [text], json.dumps([[*place, tag] for place, tag in zip(places, tags, strict=True)], ensure_ascii=False)

    def classes(self, label: str) -> Sequence[str]:
        return sorted({tag for _, _, tag in json.loads(label)})

    def column(self, labels: Sequence[str], classes: tuple[str, ...]) -> pa.Array:
        """list<struct<start, stop, label, begins, keep>>: a word's place in the text, its tag, whether it does
        not go on with the name that the word before it is part of, and whether it is of a name."""
        number = {tag: i for i, tag in enumerate(classes)}
        rows = []
        for label in labels:
            words = json.loads(label)
            before = [OUTSIDE, *(tag for _, _, tag in words)]
            rows.append(
                [
                    _word(start, stop, number[tag], begins=not _goes_on(last, tag), keep=_kind(tag) != "")
                    for (start, stop, tag), last in zip(words, before, strict=False)
                ]
            )
        return _column(rows)

    def blank(self, texts: Sequence[str]) -> pa.Array:
        """Words are what white space divides, and each Chinese character and mark of punctuation by itself."""
        rows = []
        for text in texts:
            batch, shift = TextBatch.from_texts([text]), 1  # the first code point of a batch is no row's
            places = zip(batch.starts[:-1, 1].tolist(), batch.stops[:-1, 1].tolist(), strict=True)
            rows.append([_word(a - shift, b - shift, 0, begins=True, keep=False) for a, b in places])
        return _column(rows)

    def broken(self, before: pa.Table, after: pa.Table) -> Bools:
        """Rows in which some words of a name are gone or no longer stand beside the others, or all words are gone."""
        changed = [old != new for old, new in zip(*(t["text"].to_pylist() for t in (before, after)), strict=True)]
        found = np.zeros(after.num_rows, dtype=bool)
        for row in np.flatnonzero(changed).tolist():
            old, new = ((t["text"][row].as_py(), t["label"][row].as_py()) for t in (before, after))
            gone = all(word["start"] < 0 for word in new[1])
            found[row] = gone or any(_torn(old, new, a, b) for a, b in pairwise(range(len(new[1]))))
        return found

    def encode(self, rows: pa.Table, columns: Sequence[str], reader: Reader) -> dict[str, pa.Array]:
        """`label`: of each word's first token; `reference`: the words' places."""
        import pyarrow as pa

        aligned = reader.aligned(rows["text"])
        words = pa.concat_arrays(rows["label"].chunks) if rows["label"].num_chunks != 1 else rows["label"].chunk(0)
        row = np.repeat(np.arange(len(words)), words.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))
        start, stop, tag = (words.flatten().field(name).to_numpy() for name in ("start", "stop", "label"))
        there = np.flatnonzero(start >= 0)
        row, start, stop, tag = row[there], start[there], stop[there], tag[there]
        real = np.flatnonzero(aligned.texts == 0)
        at = np.searchsorted(aligned.rows[real] << 32 | aligned.stops[real], row << 32 | start, side="right")
        token = real[np.minimum(at, len(real) - 1)] if len(real) else at
        fits = at < len(real)
        fits[fits] = (aligned.rows[token[fits]] == row[fits]) & (aligned.starts[token[fits]] < stop[fits])
        labels = np.full(len(aligned.rows), NO_LABEL, np.int64)
        # Of words that share a token the first one names it: of several values for a place, numpy keeps the last.
        labels[token[fits][::-1]] = tag[fits][::-1]
        offsets = aligned.inputs["input_ids"].offsets
        return {
            **aligned.inputs,
            "label": pa.ListArray.from_arrays(offsets, pa.array(labels, pa.int64())),
            "reference": _places(offsets.to_numpy(), row[fits], token[fits], zip(start[fits], stop[fits], strict=True)),
        }

    def width(self, classes: int) -> int:
        return 3 + 3 * classes

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """Those over words; of each tag, how often it was predicted rightly, predicted, and there."""
        real = batch.labels != NO_LABEL
        found, tags = logits.argmax(dim=-1)[real], batch.labels[real]
        counts = [torch.bincount(part, minlength=logits.shape[-1]) for part in (tags[found == tags], found, tags)]
        return torch.cat([token_sums(logits, batch.labels), torch.cat(counts).double().cpu()])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Over words: `accuracy`, `macro_f1` (of the tags that occur, O among them), `log_loss`."""
        loss, right, words = sums[:3].tolist()
        hits, found, real = sums[3:].reshape(3, -1).tolist()
        scores = [f1(*row) for row in zip(hits, found, real, strict=True) if row[1] + row[2]]
        return {
            "accuracy": right / some(words),
            "macro_f1": sum(scores) / len(scores),
            "log_loss": loss / words,
        }

    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]:
        """The tag of each word that the model reads: `value` holds them with their places in the text."""
        found = []
        for row, places in enumerate(batch.references):
            numbers = logits[row].argmax(dim=-1).tolist()
            words = [
                {"start": place["start"], "stop": place["stop"], "label": classes[numbers[place["token"]]]}
                for place in places
            ]
            found.append(Prediction(label=" ".join(word["label"] for word in words), value=words))
        return found


def _list(cell: Any, what: str) -> list[str]:
    found = cell.split() if isinstance(cell, str) else cell
    if not isinstance(found, list) or not all(isinstance(word, str | int) for word in found):
        raise Unusable(f"no list of {what}")
    words = [str(word).strip() for word in found]
    if "" in words:
        raise Unusable(f"an empty one among the {what}")
    return words


def _joined(words: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """The words as one text, and where each of them is."""
    lengths = np.array([len(word) for word in words])
    ends = np.cumsum(lengths) - 1
    letters = encoded("".join(words))
    chinese = kinds_of(letters, lengths) == IDEOGRAPH
    last = kinds_of(letters[ends], np.ones_like(ends)) == IDEOGRAPH
    text, places = "", []
    for number, word in enumerate(words):
        if number and not chinese[number] and not last[number - 1]:
            text += " "
        places.append((len(text), len(text) + len(word)))
        text += word
    return text, places


def _goes_on(before: str, tag: str) -> bool:
    """Whether a word goes on with the name that the word before it is part of: I-PER after B-PER."""
    return tag[0] in "IEL" and before[0] in "BI" and _kind(before) == _kind(tag) != ""


def _kind(tag: str) -> str:
    """What a word is a part of the name of: PER of B-PER; empty for a word that is of no name."""
    place, _, kind = tag.partition("-")
    return kind if place in tuple("BIELSU") else ""


def _word(start: int, stop: int, label: int, *, begins: bool, keep: bool) -> dict[str, Any]:
    return {"start": start, "stop": stop, "label": label, "begins": begins, "keep": keep}


def _column(rows: list[list[dict[str, Any]]]) -> pa.Array:
    import pyarrow as pa

    place = {"start": pa.int64(), "stop": pa.int64(), "label": pa.int64(), "begins": pa.bool_(), "keep": pa.bool_()}
    return pa.array(rows, pa.list_(pa.struct(list(place.items()))))


def _torn(old: tuple[str, Any], new: tuple[str, Any], first: int, second: int) -> bool:
    """Whether two neighbouring words of one name are no longer what they were to each other."""
    (old_text, old_words), (new_text, new_words) = old, new
    if old_words[second]["begins"]:
        return False
    a, b = new_words[first], new_words[second]
    if a["start"] < 0 or b["start"] < 0:
        return bool(max(a["start"], b["start"]) >= 0)
    between = old_text[old_words[first]["stop"] : old_words[second]["start"]]
    return b["start"] < a["stop"] or new_text[a["stop"] : b["start"]] != between


def _places(offsets: Any, row: Any, token: Any, words: Iterable[Any]) -> pa.Array:
    """Of each row, the words that are read: the number of the token in its row, and the word's place."""
    import pyarrow as pa

    found: list[list[dict[str, int]]] = [[] for _ in offsets[1:]]
    for at, one, (start, stop) in zip(row.tolist(), token.tolist(), words, strict=True):
        found[at].append({"token": one - int(offsets[at]), "start": start, "stop": stop})
    place = pa.struct([(name, pa.int64()) for name in ("token", "start", "stop")])
    return pa.array(found, pa.list_(place))
