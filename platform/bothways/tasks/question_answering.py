"""Extractive question answering: the answer is a span of a text (Rajpurkar et al. 2016).

L = -(log p(first token) + log p(last token)) / 2, each over all tokens of the row; the first token of all stands for
no answer (Rajpurkar et al. 2018).

A text that is longer than the model reads is read in windows (Devlin et al. 2019): the answer is the span, of all
windows, with the largest sum of the logits of its first and last token, and there is none where that of the first token
of every window is larger. At evaluation p is over the tokens of all windows of a row (Clark & Gardner 2018).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways import seeding
from bothways.contracts import EVALUATION, NO_LABEL, Batch
from bothways.errors import UserError
from bothways.lazy import torch
from bothways.registry import TASKS, unless
from bothways.task_contract import Architecture, Bools, Logits, Prediction, Reader, Unusable
from bothways.tasks import Directions, Task, some
from bothways.tasks._tokens import token_losses
from bothways.tasks._windows import NO_ANSWER, Places, Span, Windows
from bothways.text_scores import answer_scores

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from bothways.config import Experiment


_SPECIALS = 8
"""Tokens that are kept free of both texts when room is reckoned; a tokenizer adds 3 or 4."""


@TASKS.register("question_answering")
class QuestionAnswering(Task):
    """`text` is the question and `pair` the text with the answer. A label cell is SQuAD's (`text` and `answer_start`,
    lists), or the answer alone where it occurs once; empty: no answer.

    The answer is spared by augmentations, and moves with its text; a change that would lose it is refused.
    `longest`: tokens of an answer. `unanswerable`: whether no answer may be predicted. `stride`: tokens that
    neighbouring windows of `model.max_length` share, so that an answer of as many is whole in one of them; 0: there is
    one window, and a row whose answer is cut off has no label. In training a row is one of the windows that have its
    answer, drawn in each epoch anew, or, with the probability `elsewhere`, one that has nothing of it: its target is no
    answer.
    """

    term = "extractive question answering"
    source = "Rajpurkar et al. 2016, 2018; windows: Devlin et al. 2019"
    logits: ClassVar[Logits] = "other"
    places: ClassVar[Literal["text", "pair"] | None] = "pair"
    score: ClassVar[str] = "exact match"
    ranking: ClassVar[tuple[str, ...]] = ("f1", "exact_match")

    longest: Annotated[int, Field(ge=1, le=512)] = 30
    unanswerable: bool = False
    stride: Annotated[int, Field(ge=0, le=4096), unless(0)] = 0
    elsewhere: Annotated[float, Field(ge=0, le=0.9), unless(0)] = 0.0

    @property
    def directions(self) -> Directions:
        return {"exact_match": "max", "f1": "max", "log_loss": "min"}

    def check(self, experiment: Experiment) -> None:
        if experiment.data.pair is None:
            raise UserError(
                "question_answering reads a question and a text: name both columns, data.text and data.pair"
            )
        most = (experiment.model.max_length - _SPECIALS) // 2
        if self.stride > most:
            raise UserError(
                f"task.stride {self.stride}: windows of model.max_length {experiment.model.max_length} with a question "
                f"can share {max(most, 0)} tokens at most"
            )
        if self.elsewhere and not self.stride:
            raise UserError(
                "task.elsewhere shows windows without the answer, and there is only one window: "
                "set task.stride, or leave it out"
            )

    def architecture(self, classes: tuple[str, ...]) -> Architecture:
        return Architecture(auto=("AutoModelForQuestionAnswering",), settings=(("num_labels", 2),))

    def read(self, texts: list[Any], cell: Any) -> tuple[list[Any], str]:
        """The label is a JSON list of [start, stop], the answers' places in the second text."""
        if len(texts) != 2:
            raise Unusable("a single text where a question and a text belong")
        if not isinstance(texts[1], str):
            return texts, "[]"  # whatever it is, it is no text, and refused as such
        return texts, json.dumps([_place(texts[1], *answer) for answer in _answers(cell)])

    def column(self, labels: Sequence[str], classes: tuple[str, ...]) -> pa.Array:
        """list<struct<start, stop>>: the answers' places."""
        return _column([[{"start": a, "stop": b} for a, b in json.loads(label)] for label in labels])

    def blank(self, texts: Sequence[str]) -> pa.Array:
        return _column([[] for _ in texts])

    def broken(self, before: pa.Table, after: pa.Table) -> Bools:
        """Rows in which an answer is lost."""
        return np.array([any(place["start"] < 0 for place in row) for row in after["label"].to_pylist()], dtype=bool)

    def encode(self, rows: pa.Table, columns: Sequence[str], reader: Reader) -> dict[str, pa.Array]:
        """`label`: the first answer's first and last token. In an evaluation a row for each window, and `reference`:
        the places of its tokens, and, in the first of a row, the text and the answers."""
        import pyarrow as pa

        windows, labels = self._windows([rows[name] for name in columns], rows["label"].to_pylist(), reader)
        numbers = pa.list_(pa.int64())
        if (rows["epoch"].to_numpy() != EVALUATION).any():
            chosen, shown = self._shown(rows, windows, labels, reader.seed)
            inputs = {name: values.take(pa.array(chosen)) for name, values in windows.inputs.items()}
            return {**inputs, "label": pa.array(shown, numbers)}
        references: list[dict[str, Any]] = [
            {"text": None, "answers": None, "starts": starts, "stops": stops}
            for starts, stops in map(windows.places, range(len(windows)))
        ]
        answers = zip(rows["pair"].to_pylist(), rows["label"].to_pylist(), strict=True)
        for first, (text, places) in zip(windows.firsts.tolist(), answers, strict=True):
            found = [text[place["start"] : place["stop"]] for place in places]
            references[first] |= {"text": text or "", "answers": found}
        kinds = {"text": pa.string(), "answers": pa.list_(pa.string()), "starts": numbers, "stops": numbers}
        return {
            **windows.inputs,
            "label": pa.array(labels, numbers),
            "reference": pa.array(references, pa.struct(list(kinds.items()))),
        }

    def begins(self, encoded: pa.Table) -> Bools:
        import pyarrow.compute as pc

        texts = pc.struct_field(encoded["reference"], "text")
        return np.asarray(pc.is_valid(texts).to_numpy(), bool)

    def _windows(self, texts: list[Any], places: list[Places], reader: Reader) -> tuple[Windows, list[Span]]:
        """The windows of all rows, and the first and last token of each row's first answer in them."""
        if self.stride:
            aligned, counts = reader.windows(self.stride, *texts)
        else:
            aligned, counts = reader.aligned(*texts), np.ones(len(places), np.int64)
        windows = Windows.of(aligned, counts)
        return windows, windows.labels(places)

    def _shown(self, rows: pa.Table, windows: Windows, labels: list[Span], seed: int) -> tuple[list[int], list[Span]]:
        """The window that stands for each row in training, and its label."""
        ids, epochs, copies = (rows[name].to_numpy() for name in ("id", "epoch", "copy"))
        keys = seeding.keys("window", seed, ids, epochs, copies)
        away = seeding.uniforms(keys, "elsewhere") < self.elsewhere
        draws = seeding.uniforms(keys, "which")
        chosen, shown = [], []
        for row, places in enumerate(rows["label"].to_pylist()):
            first, count = int(windows.firsts[row]), int(windows.counts[row])
            among = range(first, first + count)
            without = [at for at in among if windows.misses(at, places)] if away[row] and places else []
            found = without or [at for at in among if labels[at][0] != NO_LABEL] or [first]
            at = found[int(draws[row] * len(found))]
            chosen.append(at)
            shown.append(NO_ANSWER if without else labels[at])
        return chosen, shown

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of logits (N, 2, T), first and last tokens; 0 for a row without a label, (N,)."""
        return batch.per_row(token_losses(_on_tokens(logits, batch), batch.labels))

    def row_scores(self, logits: Tensor, batch: Batch) -> Tensor:
        """1 where the answer is one of the right ones."""
        return torch.tensor([exact for exact, _ in map(self._scores, _rows(logits, batch))])

    def _scores(self, row: _Row) -> tuple[float, float]:
        """Exact match and F1."""
        return answer_scores(self._answer(row).label, row.references[0]["answers"])

    def width(self, classes: int) -> int:
        return 5

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """Exact matches, F1, rows; losses of rows that have a label, and how many have one."""
        rows = _rows(logits, batch)
        exact, f1 = np.array([self._scores(row) for row in rows]).reshape(-1, 2).sum(axis=0).tolist()
        losses = [loss for loss in map(_loss, rows) if loss is not None]
        return torch.tensor([exact, f1, len(rows), sum(losses), len(losses)], dtype=torch.float64)

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """`exact_match`, `f1` (of words, the best of the right answers), `log_loss`."""
        exact, f1, rows, losses, real = sums.tolist()
        return {"exact_match": exact / some(rows), "f1": f1 / rows, "log_loss": losses / max(1.0, real)}

    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]:
        """The likeliest answer, with its probability, and its place in the text; empty for no answer."""
        return [self._answer(row) for row in _rows(logits, batch)]

    def _answer(self, row: _Row) -> Prediction:
        """The best pair of tokens of a window, the last not before the first nor too far behind it."""
        shares, place = -np.inf, (0, 0)
        for (first, last), reference in zip(row.shares, row.references, strict=True):
            tokens = np.flatnonzero(np.array(reference["starts"]) >= 0)
            both = first[tokens][:, None] + last[tokens][None, :]
            ahead = np.arange(len(tokens))[None, :] - np.arange(len(tokens))[:, None]
            both[(ahead < 0) | (ahead >= self.longest)] = -np.inf
            if both.size and both.max() > shares:
                shares = float(both.max())
                a, b = (int(tokens[at]) for at in divmod(int(both.argmax()), len(tokens)))
                place = int(reference["starts"][a]), int(reference["stops"][b])
        nothing = row.shares[:, :, 0]
        if shares == -np.inf or (self.unanswerable and nothing.sum(axis=1).min() > shares):
            return Prediction(label="", probabilities={"": float(np.exp(nothing).sum(axis=0).prod())})
        answer = row.references[0]["text"][place[0] : place[1]]
        value = {"text": answer, "start": place[0], "stop": place[1]}
        return Prediction(label=answer, probabilities={answer: float(np.exp(shares))}, value=value)


@dataclass(frozen=True)
class _Row:
    """A row of the data, in W windows. `shares`: log-probabilities of first and last tokens over all windows, float64
    (W, 2, T). `references`: of each window. `labels`: first and last token of the right answer in each, (W, 2)."""

    shares: Any
    references: Sequence[Any]
    labels: Any


def _rows(logits: Tensor, batch: Batch) -> list[_Row]:
    """The rows that the windows of a batch are of."""
    scores, labels = _on_tokens(logits.double(), batch).cpu(), batch.labels.cpu().numpy()
    firsts = [at for at, reference in enumerate(batch.references) if reference["text"] is not None]
    rows = []
    for start, stop in pairwise([*firsts, len(batch)]):
        part = scores[start:stop]
        shares = part - part.transpose(0, 1).flatten(1).logsumexp(dim=1)[:, None]
        rows.append(_Row(shares.numpy(), batch.references[start:stop], labels[start:stop]))
    return rows


def _loss(row: _Row) -> float | None:
    """Minus the log of the probability that the right first (and last) token has in all windows together, the mean of
    the two; None where no window has the whole answer."""
    real = np.flatnonzero(row.labels[:, 0] != NO_LABEL)
    if not len(real):
        return None
    found = [np.logaddexp.reduce(row.shares[real, end, row.labels[real, end]]) for end in (0, 1)]
    return float(-np.mean(found))


def _on_tokens(logits: Tensor, batch: Batch) -> Tensor:
    """The logits (N, 2, T) with padding out of the question, so that a row does not depend on its batch."""
    padding = batch.inputs["attention_mask"][:, None, :] == 0
    return logits.masked_fill(padding, torch.finfo(logits.dtype).min)


def _answers(cell: Any) -> list[tuple[str, int | None]]:
    """Each answer, and where it starts if that is said."""
    if isinstance(cell, str) and cell.lstrip().startswith("{"):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise Unusable("a label that begins like JSON and is none") from None
    if cell is None or cell != cell or cell == "":
        return []
    if isinstance(cell, str):
        return [(cell, None)]
    if not isinstance(cell, dict) or not {"text", "answer_start"} <= cell.keys():
        raise Unusable("a label that is neither an answer nor has text and answer_start")
    texts, starts = (value if isinstance(value, list) else [value] for value in (cell["text"], cell["answer_start"]))
    typed = all(isinstance(text, str) for text in texts) and all(isinstance(start, int) for start in starts)
    if not typed or len(texts) != len(starts):
        raise Unusable("answers that do not fit their answer_start")
    return list(zip(texts, starts, strict=True))


def _place(text: str, answer: str, start: int | None) -> tuple[int, int]:
    if not answer:
        raise Unusable("an empty answer")
    if start is None:
        start = text.find(answer)
        if start >= 0 and text.find(answer, start + 1) >= 0:
            raise Unusable("an answer that occurs more than once: give its answer_start")
    if start < 0 or text[start : start + len(answer)] != answer:
        raise Unusable("an answer that does not stand in the text where it should")
    return start, start + len(answer)


def _column(rows: list[list[dict[str, int]]]) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows, pa.list_(pa.struct([("start", pa.int64()), ("stop", pa.int64())])))
