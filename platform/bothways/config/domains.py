"""Parts of `config.Data` and `config.InputSide`: folds, and what of other domains an experiment takes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bothways.config.strict import Config
from bothways.contracts import Beside
from bothways.errors import UserError
from bothways.registry import Choices, Component, Range, unless

CleanSource = Annotated[str | None, unless(None)]


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


class Mixed(Config):
    """Labelled rows of another domain. `source`: as `Data.source`, with the same columns; of an asset or hub dataset
    with splits of its own, the training rows. `labels`: its labels' names, where ours are others: `{theirs: ours}`.
    """

    source: str
    labels: dict[str, str] = Field(default_factory=dict)


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


def refuse_impossible(mixing: SampleMixing, mix: tuple[Mixed, ...], batch_size: int) -> None:
    """Raises `UserError` where there is nothing to mix, or no room for it."""
    if mixing.weight and not mix:
        raise UserError(f"input.sample_mixing.weight is {mixing.weight}, but data.mix names no source to mix in")
    if mixing.weight and batch_size < 2:
        raise UserError(f"input.sample_mixing.weight is {mixing.weight}, but a batch of one row cannot be shared")


def refuse_nothing_clean(beside: Iterable[Beside], clean_source: str | None) -> None:
    """Raises `UserError` where an objective reads clean rows and there are none."""
    if clean_source is None and any(kind.source == "clean" for kind in beside):
        raise UserError("an objective has `rows: clean`: name such rows in data.clean_source, or set `rows: labelled`")
