"""Parts of `config.Data` and `config.InputSide`: splits, folds, and what of other domains an experiment takes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bothways.config.strict import Config, Count
from bothways.contracts import Beside
from bothways.errors import UserError
from bothways.registry import Choices, Component, Range, unless

if TYPE_CHECKING:
    from bothways.config import Data

Column = str | Annotated[int, Field(ge=0)]


class Splits(Config):
    """Rows of each split: a count (int), a share of what the source holds (float below 1), or, for train, the rest.

    Drawn in the order test, selection, train: another size of train leaves the other two as they were. A split that
    has a source of its own is drawn from that source: a count takes that many of its rows, anything else all of them.
    """

    train: int | float | None = None
    selection: int | float = 0.1
    test: int | float = 0.1

    @field_validator("train", "selection", "test")
    @classmethod
    def _some_rows(cls, size: int | float | None) -> int | float | None:
        if size is None or (isinstance(size, int) and size >= 1) or 0.0 < size < 1.0:
            return size
        raise ValueError(f"is {size}: a split is a count of rows (1 or more) or a share (between 0 and 1)")


class Fold(Config):
    """One fold of a cross-validation: of `of` equal parts of the training and selection rows together, stratified and
    drawn by `split_seed`, part `number` (from 0) takes the place of the selection rows and the others train. The test
    rows are those that they are without it. `repeat`: another division into as many parts.
    """

    of: Annotated[int, Field(ge=2)]
    number: Annotated[int, Field(ge=0)] = 0
    repeat: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Fold:
        if self.number >= self.of:
            raise ValueError(f"number {self.number} is not one of {self.of} parts: they are counted from 0")
        return self


class Instructions(Config):
    """Rows of a source as an instruction with its answer, one of several such sources.

    `source`, `text`, `label`: as in `Data`; of an asset or hub dataset with splits of its own, the training rows.
    `prompt`: what becomes of a text, `{text}` in its place. `answers`: other words for labels, `{theirs: ours}`.
    `rows`: of so many, drawn by content and `data.split_seed`; null: of all.
    """

    source: str
    text: Column = "text"
    label: Column = "label"
    prompt: str = "{text}"
    answers: dict[str, str] = Field(default_factory=dict)
    rows: Count | None = None

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        if prompt.count("{text}") != 1:
            raise ValueError(f"is {prompt[:60]!r}: write {{text}} once, in the place of the text")
        return prompt


Source = str | Annotated[tuple[Instructions, ...], Field(min_length=1)]


def source_name(source: Source) -> str:
    """What a source is called in messages and records."""
    return source if isinstance(source, str) else " + ".join(each.source for each in source)


class Mixed(Config):
    """Labelled rows of another domain. `source`: as `Data.source`, with the same columns; of an asset or hub dataset
    with splits of its own, the training rows. `labels`: its labels' names, where ours are others: `{theirs: ours}`.
    """

    source: str
    labels: dict[str, str] = Field(default_factory=dict)


class Feedback(Config):
    """Answers that somebody has judged: a file (csv, tsv, jsonl, parquet) with a text, an answer to it, what was said
    of that, and a better answer (a revision; or several in a list, of which the one is taken that follows best what was
    said). Answers are labels as the task reads them. `feedback` null: nothing was said, one answer is just better.
    Rows whose text is that of a selection or test row are left out.
    """

    source: str
    text: Column = "input"
    rejected: Column = "output"
    feedback: Column | None = "feedback"
    chosen: Column = "revision"


class SampleMixing(Component):
    """Training rows of other domains (`data.mix`) in each batch, under `input.sample_mixing`.

    `weight`: their share of a batch, in whole rows (one at least, if not 0; and one is our own). `temperature`: a
    source of n rows has a part in proportion to n^(1/temperature) of them; 1: every row counts alike. `weighting`:
    which rows of a source; `domain_classifier` draws a row in proportion to the odds, by its words, that it is of our
    own domain (of that of `data.unlabelled_source`, if there is one).
    """

    name = "sample_mixing"
    term = "data mixing, importance weighting"
    source = "mixture weights and temperature, Arivazhagan et al. 2019; domain classifier, Bickel et al. 2009"
    neutral: ClassVar[Mapping[str, Any]] = {"weight": 0.0}

    weight: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.05, 0.7)] = 0.0
    temperature: Annotated[float, Field(ge=1.0), Range(1.0, 5.0)] = 1.0
    weighting: Annotated[Literal["uniform", "domain_classifier"], Choices("uniform", "domain_classifier")] = "uniform"


class Auxiliary(Config):
    """Labelled rows of another classification, with labels of its own, for objectives that learn several at once.

    `source`, `text`, `pair`, `label`: as in `Data`; of an asset or hub dataset with splits, its training rows.
    """

    source: str
    text: Column = "text"
    pair: Column | None = None
    label: Column = "label"


CleanSource = Annotated[str | None, unless(None)]
Auxiliaries = Annotated[tuple[Auxiliary, ...], unless(())]


def refuse_columns_of_several(data: Data) -> Data:
    """The data. Raises `UserError` for columns of no source in particular."""
    if not isinstance(data.source, str) and (data.text, data.pair, data.label) != ("text", None, "label"):
        raise UserError("data.source is a list: say of each of its sources what its text and label are called")
    return data


def refuse_impossible(mixing: SampleMixing, mix: tuple[Mixed, ...], batch_size: int) -> None:
    """Raises `UserError` where there is nothing to mix, or no room for it."""
    if mixing.weight and not mix:
        raise UserError(f"input.sample_mixing.weight is {mixing.weight}, but data.mix names no source to mix in")
    if mixing.weight and batch_size < 2:
        raise UserError(f"input.sample_mixing.weight is {mixing.weight}, but a batch of one row cannot be shared")


def refuse_nothing_beside(beside: Iterable[Beside], data: Data) -> None:
    """Raises `UserError` where an objective reads rows that the data do not name, or that are not like ours."""
    sources = {kind.source for kind in beside}
    if "clean" in sources and data.clean_source is None:
        raise UserError("an objective has `rows: clean`: name such rows in data.clean_source, or set `rows: labelled`")
    if "auxiliary" in sources and not data.tasks:
        raise UserError("an objective learns several tasks at once: name the labelled rows of the others in data.tasks")
    for other in data.tasks:
        if (other.pair is None) != (data.pair is None):
            ours, theirs = ("single texts", "pairs") if data.pair is None else ("pairs", "single texts")
            raise UserError(
                f"data.tasks: {other.source} has {theirs}, data.source {ours}: a model reads one or the other"
            )
