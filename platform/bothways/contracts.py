"""The nouns every layer speaks, as small protocols. Who implements and who calls each is in its docstring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

from bothways.lazy import functional, torch
from bothways.task_contract import Logits, Prediction
from bothways.task_contract import TaskLike as TaskLike

if TYPE_CHECKING:  # names only: this layer imports neither torch nor pyarrow
    import pyarrow as pa
    from torch import Tensor, nn


NO_LABEL = -100
"""Where a label would stand and none is; torch's losses leave it out."""


FeedbackPart = Literal["chosen", "rejected", "told"]
"""A row of feedback is a text with the better answer as its label, the text with the worse one, or (`told`) what was
said of the worse answer, that answer and the text, with the better one as its label."""
FEEDBACK_PARTS: tuple[FeedbackPart, ...] = get_args(FeedbackPart)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Rows that an objective reads beside those of the batch, `per_row` for each of them.

    `source`: text that is `unlabelled`, the `labelled` training rows over again, in an order of their own, rows whose
    labels are known to be right (`clean`), those of the `auxiliary` tasks, whose classes are numbered through, or those
    of `data.feedback`. `changed`: each of them a second time, as the policy changes it. `temperature`: a task of n rows
    has a part in proportion to n^(1/temperature). `parts`: of feedback, what stands for a row, one view each; see
    `FeedbackPart`.
    """

    source: Literal["unlabelled", "labelled", "clean", "auxiliary", "feedback"] = "unlabelled"
    per_row: int = 1
    changed: bool = False
    temperature: float = 1.0
    parts: tuple[FeedbackPart, ...] = ()

    @property
    def views(self) -> int:
        """How many times each row is there."""
        return len(self.parts) or (2 if self.changed else 1)


class Teacher(NamedTuple):
    """A saved model that an objective learns from: its `directory`, and a `digest` of what is in it."""

    directory: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """N encoded rows, padded to T tokens, on the model's device.

    `inputs`: what the model's forward takes (`input_ids`, `attention_mask`, …), each int64 (N, T).
    `labels`: int64 (N,), the class of each row; int64 (N, T), of each token; float32 (N,) or (N, L), numbers.
    `NO_LABEL` for a row or token without one. `is_copy`: bool (N,), true for augmented copies.
    `references`: at evaluation only, for each row what its task needs beyond labels to score or to write out a
    prediction (a text, say); empty where labels are enough.
    `beside`: what objectives have asked for: of each kind one batch of N x `per_row` rows for every view, the same
    rows in the same order, as they are and then, if asked for, changed; all of them padded to T as well.
    `progress`: the share of the training that lies before this step.
    `taught`: the logits (N, C) of every teacher that objectives have named.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor
    is_copy: Tensor
    references: tuple[Any, ...] = ()
    beside: Mapping[Beside, tuple[Batch, ...]] = field(default_factory=dict)
    progress: float = 0.0
    taught: Mapping[Teacher, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """N."""
        return int(self.labels.shape[0])

    def per_row(self, values: Tensor) -> Tensor:
        """A number for each row from one for each label: (N,) as it is; of (N, T), the mean over the row's labels."""
        if values.dim() == 1:
            return values
        real = self.labels != NO_LABEL
        return (values * real).sum(dim=1) / real.sum(dim=1).clamp_min(1)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            beside={},
            inputs={name: change(values) for name, values in self.inputs.items()},
            labels=change(self.labels),
            is_copy=change(self.is_copy),
            taught={teacher: change(logits) for teacher, logits in self.taught.items()},
        )

    def _with(self, beside: Callable[[Beside, Batch], Batch], changed: Batch) -> Batch:
        kinds = {kind: tuple(beside(kind, view) for view in views) for kind, views in self.beside.items()}
        return replace(changed, beside=kinds)

    def repeat(self, views: int) -> Batch:
        """`views` copies of the batch in one, (views x N) rows: view 1 of every row, then view 2 of every row, …"""
        repeated = self._each(lambda values: values.repeat(views, *[1] * (values.dim() - 1)))
        return replace(repeated, references=self.references * views)

    def slice(self, start: int, stop: int) -> Batch:
        """Rows start to stop, and what is beside them."""
        rows = replace(self._each(lambda values: values[start:stop]), references=self.references[start:stop])
        return self._with(lambda kind, view: view.slice(start * kind.per_row, stop * kind.per_row), rows)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        there = self._each(lambda values: values.to(device, non_blocking=True))
        return self._with(lambda _, view: view.to(device), there)

    def join(self, *others: Batch) -> Batch:
        """The rows of several batches, one after another, in one; shorter ones are filled up to the longest T."""
        parts = (self, *others)
        return replace(
            self,
            beside={},
            taught={},
            inputs={name: _stacked([part.inputs[name] for part in parts], 0) for name in self.inputs},
            labels=_stacked([part.labels for part in parts], NO_LABEL),
            is_copy=torch.cat([part.is_copy for part in parts]),
            references=tuple(reference for part in parts for reference in part.references),
        )


def _stacked(tensors: Sequence[Tensor], fill: int) -> Tensor:
    """The rows of all; what is filled up is never attended to, whatever stands there."""
    if tensors[0].dim() == 1:
        return torch.cat(list(tensors))
    longest = max(tensor.shape[1] for tensor in tensors)
    filled = [functional.pad(tensor, (0, longest - tensor.shape[1]), value=fill) for tensor in tensors]
    return torch.cat(filled)


@dataclass(frozen=True, kw_only=True)
class Said:
    """K answers to some texts, as text: `prompts`, what was read, `answers`, and `references`, the labels; all (K,)."""

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    references: tuple[str, ...]

    def __len__(self) -> int:
        """K."""
        return len(self.answers)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a model answers to the N rows of a batch, K times.

    `answered`: (K x N) rows with answers for labels: draw 1 of every row, then draw 2, …. `said`: the same as text.
    """

    answered: Batch
    said: Said


@dataclass(frozen=True)
class Outputs:
    """`logits` (N, C), made by the last linear layer, with its `weights` (C, H), of `features` (N, H)."""

    logits: Tensor
    features: Tensor
    weights: Tensor


class Forward(Protocol):
    """The model as an objective sees it. Made by the training loop.

    An objective makes exactly ONE call of the object itself, or of `outputs`, for a backward pass (that is what DDP
    synchronises): several views are one call on a concatenated batch.
    """

    def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """Logits (N, C). `embeddings` (N, T, H) replace the look-up of `input_ids`."""
        ...

    def outputs(self, batch: Batch, embeddings: Tensor | None = None) -> Outputs:
        """The same, with the features that the logits are made of."""
        ...

    def own(self, objective: ObjectiveLike) -> nn.Module:
        """What `objective.modules` has made for this training."""
        ...

    def head(self, features: Tensor, *, frozen: bool = False) -> Tensor:
        """Logits that the model's last linear layer makes of features (N, H), none of its own perhaps. `frozen`: no
        gradient reaches the layer, only the features."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (N, …) of all workers, in the order in which one worker would have them all; for statistics of the
        whole batch. Every worker has to call it. Gradients flow to its own rows, so that their mean over the workers
        is the gradient of one worker with all rows."""
        ...

    def embed(self, batch: Batch) -> Tensor:
        """The input embeddings (N, T, H) of the batch's tokens."""
        ...

    def inner(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """Logits without DDP's book-keeping: for gradients with respect to the input, or none, or as a further view."""
        ...

    def reference(self, batch: Batch) -> Tensor:
        """Logits, without gradient and dropout, of the model as it was before training; for an objective with
        `recalls` only."""
        ...

    def draw(self, batch: Batch, count: int, temperature: float = 1.0) -> Drawn:
        """`count` answers of the model as it stands, without dropout, to every row; at temperature 0 the likeliest.
        For an objective with `answers` only. Draws from torch's global generator."""
        ...

    def read(self, batch: Batch) -> tuple[str, ...]:
        """The labels of the rows as text, (N,); for a task whose answers are classes or texts."""
        ...

    def judge(self, judge: Teacher, said: Said) -> Sequence[Prediction]:
        """What a saved model predicts for each of the answers; for the text with its answer, if it reads pairs."""
        ...

    def agreement(
        self, batch: Batch, others: Batch, task: TaskLike, *, head: bool = False, shares: Tensor | None = None
    ) -> Tensor:
        """How far a step of gradient descent on a row would bring the mean loss of `others`, those of all workers,
        down: the inner product of the gradients of the row's loss and of that mean, (N,). `shares`: how much each of
        the others counts in it, 1 on average; None: all alike.

        Exact, over all that training moves of the model, or the last linear layer (`head`); without dropout, and
        without a gradient of its own. Every worker has to call it.
        """
        ...

    def vocabulary(self) -> Tensor:
        """The input embedding of every token, as it stands, (V, H); no gradient reaches it."""
        ...

    def layers(self) -> nn.ModuleList:
        """The encoder's layers, first to last."""
        ...

    def parameters(self) -> Iterable[Tensor]:
        """What training moves of the model, for objectives that gather gradients over several passes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A finite scalar to minimise, and its named parts for the record (detached)."""

    total: Tensor
    parts: Mapping[str, Tensor]


class ObjectiveLike(Protocol):
    """What the model has to learn. A member of `output_side/objectives/`; called once per backward pass.

    The total is a mean over the batch's rows, so that slices of a batch add up to it; or, with `Forward.gather`, it
    has a statistic of the whole batch: each slice has its own then (`optim.accumulate`), but workers share one.
    `passes`: what a call costs in passes of plain cross-entropy over the same rows, (forward, backward).
    `beside`: the rows that it reads beside the batch's; None: none.
    `taught_by`: the saved models whose predictions it needs. `logits`: of which tasks it is defined for.
    `answers`: whether it needs the model's own answers, and so a task whose answers are classes or texts. `recalls`:
    whether it needs the model as it was before training.
    """

    @property
    def answers(self) -> bool: ...

    @property
    def recalls(self) -> bool: ...

    @property
    def logits(self) -> tuple[Logits, ...]: ...

    @property
    def passes(self) -> tuple[int, int]: ...

    @property
    def beside(self) -> Beside | None: ...

    @property
    def taught_by(self) -> tuple[Teacher, ...]: ...

    def modules(self, width: int, classes: int) -> nn.Module | None:
        """Parameters of its own, which are trained with the model's and not saved with it; None: it has none.

        `width`: H of the features. `classes`: C of the logits. Draws from torch's global generator.
        """
        ...

    def for_classes(self, counts: Sequence[int]) -> ObjectiveLike:
        """Itself for training rows of which `counts` are of each class, in the order of the label map."""
        ...

    def for_tasks(self, classes: Sequence[int]) -> ObjectiveLike:
        """Itself beside auxiliary tasks of so many `classes` each."""
        ...

    def __call__(self, forward: Forward, batch: Batch, task: TaskLike) -> Loss: ...


@dataclass(frozen=True)
class Move:
    """How a parameter moves: at `rate` times the learning rate of the step, from optimiser step `since` on."""

    rate: float = 1.0
    since: int = 0


class TrainableLike(Protocol):
    """Which parameters move, and how. A member of `output_side/trainable/`; entered for the time of a training."""

    def __call__(self, model: nn.Module) -> AbstractContextManager[Mapping[str, Move]]:
        """While inside, exactly the parameters that the mapping names require a gradient. Afterwards the model has its
        own modules and parameters again, trained: whatever was put in is merged into them.

        What is drawn at random comes from torch's global generator, which is seeded alike on all workers.
        """
        ...


class Collective(Protocol):
    """The workers of one trial. `edges/local.py` has the one-worker kind, `edges/ray_train.py` DDP's."""

    rank: int
    world: int

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module whose forward synchronises gradients over the workers (DDP), or the model itself."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over the workers, the same on each."""
        ...


Encode = Callable[["pa.Table"], "pa.Table"]
"""Views in (row, epoch, copy), encoded views out, same rows, same order: pure and picklable."""


class Views(Protocol):
    """Views that need not be in memory all at once; picklable. A table is one, `planning.PlannedViews` another."""

    @property
    def num_rows(self) -> int: ...

    def slice(self, offset: int, length: int) -> pa.Table:
        """Columns `id`, `text`, `pair`, `label`, `epoch`, `copy` of views `offset` to `offset + length`; planned ones
        have `progress` too, the share of the training that lies before each."""
        ...


class Execute(Protocol):
    """Runs an `Encode` over many views, in order, in blocks. The local edge maps it; the Ray edge shards it."""

    def __call__(self, views: Views, encode: Encode) -> Iterator[pa.Table]: ...


class Tracker(Protocol):
    """Remembers a sweep. `edges/mlflow_tracking.py`; called by the driver only (one writer)."""

    def begin(self, trial_id: str, name: str, experiment: Mapping[str, Any], knobs: Mapping[str, Any]) -> None: ...

    def report(self, trial_id: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def end(
        self, trial_id: str, status: str, test: Mapping[str, float], model_dir: str = "", error: str = ""
    ) -> None: ...


class TrialLike(Protocol):
    """What a space asks for values: Optuna's trial, or anything shaped like it."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
