"""Extractive question answering: the answer is a span of a text (Rajpurkar et al. 2016).

L = -(log p(first token) + log p(last token)) / 2, each over all tokens of the row; the first token of all stands for
no answer (Rajpurkar et al. 2018).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bothways.contracts import NO_LABEL, Batch
from bothways.errors import UserError
from bothways.lazy import torch
from bothways.registry import TASKS
from bothways.task_contract import Architecture, Bools, Logits, Prediction, Reader, Unusable
from bothways.tasks import Directions, Task, some
from bothways.tasks._tokens import token_losses
from bothways.text_scores import answer_scores

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from bothways.config import Experiment


@TASKS.register("question_answering")
class QuestionAnswering(Task):
    """`text` is the question and `pair` the text with the answer. A label cell is SQuAD's (`text` and `answer_start`,
    lists), or the answer alone where it occurs once; empty: no answer.

    The answer is spared by augmentations, and moves with its text; a change that would lose it is refused. A row
    whose answer is cut off by `model.max_length` has no label. `longest`: tokens of an answer. `unanswerable`: whether
    no answer may be predicted.
    """

    term = "extractive question answering"
    source = "Rajpurkar et al. 2016, 2018"
    logits: ClassVar[Logits] = "other"
    places: ClassVar[Literal["text", "pair"] | None] = "pair"
    score: ClassVar[str] = "exact match"
    ranking: ClassVar[tuple[str, ...]] = ("f1", "exact_match")

    longest: Annotated[int, Field(ge=1, le=512)] = 30
    unanswerable: bool = False

    @property
    def directions(self) -> Directions:
        return {"exact_match": "max", "f1": "max", "log_loss": "min"}

    def check(self, experiment: Experiment) -> None:
        if experiment.data.pair is None:
            raise UserError(
                "question_answering reads a question and a text: name both columns, data.text and data.pair"
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
        """`label`: the first answer's first and last token; `reference`: text, answers, and the places of tokens."""
        import pyarrow as pa

        aligned = reader.aligned(*(rows[name] for name in columns))
        inside = aligned.texts == 1
        starts, stops = np.where(inside, aligned.starts, -1), np.where(inside, aligned.stops, -1)
        bounds = aligned.inputs["input_ids"].offsets.to_numpy()
        labels, references = [], []
        answers = zip(rows["pair"].to_pylist(), rows["label"].to_pylist(), strict=True)
        for row, (text, places) in enumerate(answers):
            part = slice(bounds[row], bounds[row + 1])
            labels.append(_tokens(starts[part], stops[part], places))
            references.append(
                {
                    "text": text,
                    "answers": [text[place["start"] : place["stop"]] for place in places],
                    "starts": starts[part],
                    "stops": stops[part],
                }
            )
        numbers = pa.list_(pa.int64())
        kinds = {"text": pa.string(), "answers": pa.list_(pa.string()), "starts": numbers, "stops": numbers}
        return {
            **aligned.inputs,
            "label": pa.array(labels, numbers),
            "reference": pa.array(references, pa.struct(list(kinds.items()))),
        }

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of logits (N, 2, T), first and last tokens; 0 for a row without a label, (N,)."""
        return batch.per_row(token_losses(_on_tokens(logits, batch), batch.labels))

    def row_scores(self, logits: Tensor, batch: Batch) -> Tensor:
        """1 where the answer is one of the right ones."""
        return torch.tensor([exact for exact, _ in self._scores(logits, batch)])

    def _scores(self, logits: Tensor, batch: Batch) -> list[tuple[float, float]]:
        """Exact match and F1 of each row."""
        found = self.predictions(logits, batch, ())
        rows = zip(found, batch.references, strict=True)
        return [answer_scores(prediction.label, reference["answers"]) for prediction, reference in rows]

    def width(self, classes: int) -> int:
        return 5

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """Exact matches, F1, rows; losses of rows that have a label, and how many have one."""
        exact, f1 = np.array(self._scores(logits, batch)).reshape(-1, 2).sum(axis=0).tolist()
        losses = float(self.row_losses(logits.double(), batch).sum())
        real = float((batch.labels != NO_LABEL).all(dim=1).sum())
        return torch.tensor([exact, f1, float(len(batch)), losses, real], dtype=torch.float64)

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """`exact_match`, `f1` (of words, the best of the right answers), `log_loss`."""
        exact, f1, rows, losses, real = sums.tolist()
        return {"exact_match": exact / some(rows), "f1": f1 / rows, "log_loss": losses / max(1.0, real)}

    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]:
        """The likeliest answer, with its probability, and its place in the text; empty for no answer."""
        shares = torch.log_softmax(_on_tokens(logits.double(), batch), dim=-1).cpu().numpy()
        rows = zip(shares, batch.references, strict=True)
        return [self._answer(first, last, reference) for (first, last), reference in rows]

    def _answer(self, first: Any, last: Any, reference: Any) -> Prediction:
        """The best pair of tokens, the last not before the first nor too far behind it. `first`, `last`: (T,)."""
        tokens = np.flatnonzero(np.array(reference["starts"]) >= 0)
        both = first[tokens][:, None] + last[tokens][None, :]
        ahead = np.arange(len(tokens))[None, :] - np.arange(len(tokens))[:, None]
        both[(ahead < 0) | (ahead >= self.longest)] = -np.inf
        best = int(both.argmax()) if both.size else -1
        nothing = float(first[0] + last[0])
        if best < 0 or (self.unanswerable and nothing > both.flat[best]):
            return Prediction(label="", probabilities={"": float(np.exp(nothing))})
        a, b = (int(tokens[place]) for place in divmod(best, len(tokens)))
        start, stop = reference["starts"][a], reference["stops"][b]
        answer = reference["text"][start:stop]
        value = {"text": answer, "start": start, "stop": stop}
        return Prediction(label=answer, probabilities={answer: float(np.exp(both.flat[best]))}, value=value)


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


def _tokens(starts: Any, stops: Any, places: list[dict[str, int]]) -> tuple[int, int]:
    """The first answer's first and last token; the row's first token for no answer; no label for one that is cut."""
    if not places:
        return 0, 0
    tokens = np.flatnonzero((stops > places[0]["start"]) & (starts < places[0]["stop"]) & (stops > starts))
    if not len(tokens) or stops[tokens[-1]] < places[0]["stop"]:
        return NO_LABEL, NO_LABEL
    return int(tokens[0]), int(tokens[-1])
