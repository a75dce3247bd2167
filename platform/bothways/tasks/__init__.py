"""What is predicted: one file a task. Their base, below, is a task whose rows have one label each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from bothways.contracts import Batch
from bothways.registry import Component
from bothways.task_contract import Architecture, Bools, Logits, Prediction, Reader, Unusable

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from bothways.config import Experiment

Directions = Mapping[str, Literal["max", "min"]]
CLASSIFIER = ("AutoModelForSequenceClassification",)


class Task(Component):
    """`contracts.TaskLike`, as far as most tasks agree: the texts are the record's, a row has a label, and no label
    names a place in a text."""

    logits: ClassVar[Logits] = "classes"
    places: ClassVar[Literal["text", "pair"] | None] = None
    score: ClassVar[str] = "accuracy"
    fewest_classes: ClassVar[int] = 0
    exclusive: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    evaluation_rows: ClassVar[int] = 128
    ranking: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def directions(self) -> Directions: ...

    def check(self, experiment: Experiment) -> None:
        """Nothing to say."""

    @abstractmethod
    def architecture(self, classes: tuple[str, ...]) -> Architecture: ...

    def read(self, texts: list[Any], cell: Any) -> tuple[list[Any], str]:
        return texts, plain_label(cell)

    def classes(self, label: str) -> Sequence[str]:
        return ()

    @abstractmethod
    def column(self, labels: Sequence[str], classes: tuple[str, ...]) -> pa.Array: ...

    @abstractmethod
    def blank(self, texts: Sequence[str]) -> pa.Array: ...

    def broken(self, before: pa.Table, after: pa.Table) -> Bools:
        return np.zeros(after.num_rows, dtype=bool)

    def encode(self, rows: pa.Table, columns: Sequence[str], reader: Reader) -> dict[str, pa.Array]:
        return {**reader.inputs(*(rows[name] for name in columns)), "label": rows["label"]}

    def begins(self, encoded: pa.Table) -> Bools:
        return np.ones(encoded.num_rows, dtype=bool)

    @abstractmethod
    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor: ...

    @abstractmethod
    def row_scores(self, logits: Tensor, batch: Batch) -> Tensor: ...

    @abstractmethod
    def width(self, classes: int) -> int: ...

    @abstractmethod
    def sums(self, logits: Tensor, batch: Batch) -> Tensor: ...

    @abstractmethod
    def metrics(self, sums: Tensor) -> dict[str, float]: ...

    def generates(self, split: str) -> bool:
        return False

    @abstractmethod
    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]: ...


def plain_label(cell: Any) -> str:
    """A label as text: numbers and booleans are names of classes too. Empty when there is none. Raises `Unusable`."""
    if cell is None or cell != cell:  # NaN is what data frames write for nothing
        return ""
    if isinstance(cell, list | dict):
        raise Unusable(f"a {type(cell).__name__} where a label belongs")
    return cell.strip() if isinstance(cell, str) else str(cell)


def some(rows: float) -> float:
    """The number of rows, to divide by. Raises `ValueError` when there were none."""
    if rows == 0:
        raise ValueError("there are no rows to score")
    return rows


def f1(hits: float, found: float, real: float) -> float:
    """2 x hits / (predictions + labels); 0 where there are none of either."""
    return 2 * hits / (found + real) if found + real else 0.0
