"""What a task is to the rest: the places where reading, encoding, the model and scoring depend on what is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from bothways.errors import UserError, did_you_mean

if TYPE_CHECKING:  # names only: this layer imports neither torch nor pyarrow
    import pyarrow as pa
    from torch import Tensor

    from bothways.config import Experiment, Pipeline
    from bothways.contracts import Batch

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Unusable(ValueError):  # noqa: N818 - what a record is
    """A record that a task cannot learn from. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The transformers model a task needs.

    `auto`: classes of transformers by name; the first that knows the model's type is taken. `settings`: values for its
    configuration, those of a new head as a rule. `decoder_layers`: of the decoder that an encoder becomes; None: all.
    """

    auto: tuple[str, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    decoder_layers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Encoded texts whose K tokens know where they stand.

    `inputs`: `input_ids`, and `token_type_ids` where the model reads them, list<int32> of N rows. `rows`, `starts`,
    `stops`: of every token, its row, and its characters in the text it is of. `texts`: which text that is, from 0; -1
    for special tokens. All int64 (K,).
    """

    inputs: Mapping[str, pa.Array]
    rows: I64
    starts: I64
    stops: I64
    texts: I64


class Reader(Protocol):
    """A model's tokenizer as a task sees it, within its encode step.

    `max_length`: tokens of a row. `start`: the token a decoder begins with, `end`: the one that ends a text; None where
    the model has none. `seed`: of what a task draws as it encodes.
    """

    @property
    def max_length(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def start(self) -> int | None: ...

    @property
    def end(self) -> int | None: ...

    def inputs(self, *columns: pa.ChunkedArray, max_length: int | None = None) -> dict[str, pa.Array]:
        """`input_ids`, and `token_type_ids` where the model reads them: with special tokens, cut to length."""
        ...

    def aligned(self, *columns: pa.ChunkedArray) -> Aligned:
        """The same, and where every token stands."""
        ...

    def windows(self, stride: int, *columns: pa.ChunkedArray) -> tuple[Aligned, I64]:
        """Pairs, each as so many rows that no token of its second text is left out, and how many those are, (N,).

        Neighbouring rows share `stride` tokens of it, and all have the first text, cut to half a row at most.
        """
        ...

    def pieces(self, texts: pa.ChunkedArray) -> pa.ListArray:
        """The ids of each whole text, without special tokens."""
        ...

    def chat(self, content: str) -> str:
        """What somebody says to the model as its chat template writes it, up to where the answer begins. Raises
        `UserError` when it has none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of a row.

    `label`: as text. `probabilities`: by label; empty for a task that has none. `value`: the same as plain data (a
    class, a list of classes, a number, places in the text, …).
    """

    label: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    value: Any = None

    @property
    def probability(self) -> float | None:
        """That of the label, if there is one."""
        return self.probabilities.get(self.label)


Logits = Literal["classes", "tokens", "other"]
"""What a task's logits are. `classes`: (N, C), labels (N,). `tokens`: (N, T, C), labels (N, T), a class for each token
that has a label. `other`: only the task's own loss is defined on them."""


class TaskLike(Protocol):
    """What is predicted: how labels are read, which model it takes, how it is scored. A member of `tasks/`.

    `directions`: whether each metric is to be made larger (`max`) or smaller (`min`). `ranking`: the metrics that say
    which of two models is better, the first one first, the others to break ties. `logits`: see `Logits`.
    `places`: the column of text whose places its labels name (their fields `start` and `stop`, in characters), or None.
    `score`: what `row_scores` are called. `fewest_classes`: that the data must have; 0 for a task without classes.
    `exclusive`: whether two labels for one text contradict each other. `writes`: whether predictions are texts.
    `evaluation_rows`: in a batch without gradient.
    """

    name: ClassVar[str]
    logits: ClassVar[Logits]
    places: ClassVar[Literal["text", "pair"] | None]
    score: ClassVar[str]
    fewest_classes: ClassVar[int]
    exclusive: ClassVar[bool]
    writes: ClassVar[bool]
    evaluation_rows: ClassVar[int]
    ranking: ClassVar[tuple[str, ...]]

    @property
    def directions(self) -> Mapping[str, Literal["max", "min"]]: ...

    def check(self, experiment: Experiment) -> None:
        """Raises `UserError` for an experiment in which this task makes no sense."""
        ...

    def architecture(self, classes: tuple[str, ...]) -> Architecture:
        """The model it needs for these classes."""
        ...

    def read(self, texts: list[Any], cell: Any) -> tuple[list[Any], str]:
        """A record's texts, and its label cell as a text from which `classes` and `column` read it again.

        Empty for no label. Raises `Unusable`.
        """
        ...

    def classes(self, label: str) -> Sequence[str]:
        """The classes that a label names."""
        ...

    def column(self, labels: Sequence[str], classes: tuple[str, ...]) -> pa.Array:
        """The `label` column of a dataset's tables. Class numbers are positions in `classes`; whole numbers (N,) are
        what splits are stratified by."""
        ...

    def blank(self, texts: Sequence[str]) -> pa.Array:
        """A `label` column for texts that have no labels."""
        ...

    def broken(self, before: pa.Table, after: pa.Table) -> Bools:
        """The rows whose change of text has damaged their labels, (N,): they are put back as they were. Tables have
        columns text, pair and label; places were moved along, or are -1 where they are gone."""
        ...

    def encode(self, rows: pa.Table, columns: Sequence[str], reader: Reader) -> dict[str, pa.Array]:
        """Columns of a batch: `label`, `input_ids`, whatever else the model's forward takes, and `reference` if the
        task has any (see `Batch`; it is dropped from rows that are trained on). `columns`: of `rows`, those with texts.

        One row for each; or several, one after another, for a row that is evaluated: see `begins`.
        """
        ...

    def begins(self, encoded: pa.Table) -> Bools:
        """Which encoded rows of an evaluation begin a row, (N,); the others go on with the one before. Those of one row
        are in one batch, and `row_scores`, `sums` and `predictions` take them for one."""
        ...

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """The supervised loss of every row, (N,)."""
        ...

    def row_scores(self, logits: Tensor, batch: Batch) -> Tensor:
        """How right every row is, from 0 to 1, (N,)."""
        ...

    def width(self, classes: int) -> int:
        """How many numbers `sums` has."""
        ...

    def sums(self, logits: Tensor, batch: Batch) -> Tensor:
        """Float64 sums that add up over batches and workers and that `metrics` divides once."""
        ...

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Metrics by name (`accuracy`, `macro_f1`, `log_loss`, …)."""
        ...

    def generates(self, split: str) -> bool:
        """Whether what the model writes of the rows of a split is scored, too."""
        ...

    def predictions(self, logits: Tensor, batch: Batch, classes: tuple[str, ...]) -> list[Prediction]:
        """What the model says of each row."""
        ...


def refuse_misfit(experiment: Experiment) -> Experiment:
    """The experiment. Raises `UserError` for one whose task does not go with the rest of it."""
    task = experiment.task
    for term in experiment.output.terms:
        if task.logits not in term.objective.logits:
            raise UserError(f"objective {term.objective.name} as it is set is not defined for the task {task.name}")
        if term.objective.answers and not (task.writes or task.logits == "classes"):
            raise UserError(
                f"objective {term.objective.name} learns from answers, which are classes or texts: "
                f"those of {task.name} are neither"
            )
        if any(kind.source == "feedback" for kind in [term.objective.beside] if kind) and not experiment.data.feedback:
            raise UserError(f"objective {term.objective.name} learns from feedback: name some in data.feedback")
    if task.places and experiment.input.reconstruct:
        raise UserError(f"the labels of {task.name} are places in the text: leave input.reconstruct out")
    if experiment.data.label_names and task.name != "classification":
        raise UserError(f"data.label_names renames classes, and is not for the task {task.name}: leave it out")
    task.check(experiment)
    return experiment


def refuse_search(pipeline: Pipeline) -> Pipeline:
    """The pipeline. Raises `UserError` for a search that its task cannot be searched by."""
    task, search = pipeline.experiment.task, pipeline.search
    if search and search.metric not in task.directions:
        raise UserError(f"search.metric {search.metric!r}: {did_you_mean(search.metric, task.directions)}")
    if search and search.screen and task.logits != "classes":
        raise UserError(f"search.screen judges by probabilities of classes, and {task.name} has none: set it to 0")
    judged = [name for name in pipeline.goals().names if name == "text/fidelity"] if search else []
    if judged and task.logits != "classes":
        raise UserError(f"{judged[0]} judges by probabilities of classes, and {task.name} has none: leave it out")
    return pipeline
