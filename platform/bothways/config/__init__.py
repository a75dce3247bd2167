"""The two halves of a run: `Experiment` says WHAT is learned (its identity), `Run` says WHERE (never identity).

Every field is typed and bounded; unknown keys are refused. Files become these types in `yaml_io`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainSerializer, field_validator, model_validator

from bothways.config.domains import (
    Auxiliaries,
    CleanSource,
    Column,
    Feedback,
    Mixed,
    SampleMixing,
    Source,
    refuse_columns_of_several,
    refuse_impossible,
    refuse_nothing_beside,
)
from bothways.config.domains import Fold as Fold
from bothways.config.domains import Splits as Splits
from bothways.config.few_shot import MaybeFewShot
from bothways.config.goals import Goals, check, measures, objectives
from bothways.config.optim import Optim as Optim
from bothways.config.search import Search as Search
from bothways.config.strict import Config as Config
from bothways.config.strict import Count, Probability
from bothways.contracts import Beside
from bothways.errors import UserError
from bothways.registry import OBJECTIVES, PREPARATIONS, TASKS, TRAINABLES, TRANSFORMS, WEIGHTINGS, Component, unless
from bothways.task_contract import refuse_misfit, refuse_search

Language = Literal["en", "zh"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


if TYPE_CHECKING:
    Transform = Any
    Preparation = Any
    Objective = Any
    Trainable = Any
    Task = Any
    Weighting = Any
else:
    Transform, Preparation, Objective = TRANSFORMS.field, PREPARATIONS.field, OBJECTIVES.field
    Trainable, Task, Weighting = TRAINABLES.field, TASKS.field, WEIGHTINGS.field


class _Wrapped(Config):
    """A component with a number beside it, written as one flat mapping: `{name: …, knob: …, <number>: …}`."""

    @model_validator(mode="before")
    @classmethod
    def _unflatten(cls, value: Any) -> Any:
        slot, *numbers = cls.model_fields  # the component's field comes first
        if isinstance(value, str):
            return {slot: value}
        if not isinstance(value, dict) or slot in value:
            return value
        return {slot: {k: v for k, v in value.items() if k not in numbers}} | {
            k: value[k] for k in numbers if k in value
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """As it is written: a member of the component's family, with the numbers `x-beside` it."""
        schema: dict[str, Any] = handler.resolve_ref_schema(handler(core))
        component, *numbers = schema["properties"].values()
        beside = dict(zip(list(schema["properties"])[1:], numbers, strict=True))
        return {"title": schema["title"], "x-family": component["x-family"], "x-beside": beside}

    def spec(self) -> dict[str, Any]:
        """The flat mapping that builds this again."""
        slot, *numbers = type(self).model_fields
        component: Component = getattr(self, slot)
        return component.spec() | {k: getattr(self, k) for k in numbers}


Schedule = Literal["constant", "rising", "falling"] | tuple[tuple[Probability, Probability], ...]


class Operation(_Wrapped):
    """One step of a sub-policy: `transform`, applied to a row with `probability`.

    `schedule`: what its magnitude (the knob `p`) is multiplied by in the course of the training; a transform without
    that knob has its probability multiplied. `constant`: 1. `rising`: 0 at the first step, growing evenly towards 1.
    `falling`: 1 minus that. Or pairs `[share, factor]`, as in population-based augmentation (Ho et al. 2019): from that
    share of the steps on, this factor; before the first pair, its factor too.
    """

    transform: Transform
    probability: Probability = 1.0
    schedule: Schedule = "constant"

    @field_validator("schedule")
    @classmethod
    def _goes_forward(cls, schedule: Schedule) -> Schedule:
        if not isinstance(schedule, str):
            shares = [share for share, _ in schedule]
            if not shares:
                raise ValueError("a list of [share, factor] needs at least one pair, such as [[0, 0.2], [0.5, 1]]")
            if shares != sorted(set(shares)):
                raise ValueError("the shares of the training must grow from pair to pair, such as [[0, 0.2], [0.5, 1]]")
        return schedule


class Term(_Wrapped):
    """One summand of the loss: `weight` x `objective`."""

    objective: Objective
    weight: Annotated[float, Field(ge=0.0)] = 1.0


_Operation = Annotated[Operation, PlainSerializer(lambda o: o.spec())]
_Term = Annotated[Term, PlainSerializer(lambda t: t.spec())]


class Data(Config):
    """Where labelled text comes from and how it is divided.

    `source`, `selection_source`, `test_source`: `asset:NAME`, `hf:org/name@revision` (or `hf:org/name/subset@…`), or a
    csv/tsv/jsonl/parquet path. `source` may be a list of such sources, each with a prompt that makes an instruction of
    its texts (see `Instructions`). Without the latter two, an asset's or hub dataset's own splits serve, else `source`
    is divided. `text`, `pair`, `label`: column names; or, for a csv or tsv file without a header line, positions
    counted from 0 (`label: 0` and `text: 1` for `label<TAB>text`). In a csv, quotes follow RFC 4180; in a tsv every
    line is a row and quotes are characters.
    `dedup`: what to do with texts found in more than one split or twice in one. `max_bad_rows`: more unusable rows
    than this (count, or share below 1) in one source is an error; fewer go to a quarantine file with their reasons.
    `label_names`: other names for the classes of `source`, `selection_source` and `test_source`, `{theirs: ours}`; two
    that get one name are one class.
    `fold`: train on one fold of a cross-validation; null: on the splits as they are.
    `unlabelled_source`: text of the domain that the model is to serve; its labels are not read. It takes the place of
    the rows that no split uses. `mix`: labelled rows of other domains, for `input.sample_mixing`. `feedback`: what was
    said of answers, for objectives that learn from it. `clean_source`: a few rows whose labels are right, for
    objectives that judge the others by them. `tasks`: rows with labels of their own, for objectives that learn several
    tasks at once. None of these ever has a text of a split; feedback may be on texts of training rows.
    """

    source: Source
    selection_source: str | None = None
    test_source: str | None = None
    text: Column = "text"
    pair: Column | None = None
    label: Column = "label"
    label_names: dict[str, str] = Field(default_factory=dict)
    language: Language = "en"
    splits: Splits = Splits()
    split_seed: int = 0
    fold: Fold | None = None
    dedup: Literal["drop", "error", "keep"] = "drop"
    max_bad_rows: Annotated[int | float, Field(ge=0)] = 0.01
    unlabelled_source: str | None = None
    mix: tuple[Mixed, ...] = ()
    feedback: Annotated[Feedback | None, unless(None)] = None
    clean_source: CleanSource = None
    tasks: Auxiliaries = ()

    _columns = model_validator(mode="after")(refuse_columns_of_several)


class Model(Config):
    """`source`: `asset:NAME`, `hf:org/name@revision` or a directory. `max_length` in tokens. `dropout`: override.

    `vocabulary`: `corpus` leaves out what the texts never use of it (all but the test rows, and unlabelled text), for
    models of many languages, which are mostly vocabulary.
    `prepare`: what the body learns from the data's own texts, in order, before training.
    """

    source: str = "asset:minilm-l6"
    max_length: Annotated[int, Field(ge=4, le=8192)] = 64
    vocabulary: Literal["whole", "corpus"] = "whole"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    prepare: tuple[Preparation, ...] = ()


class Augment(Config):
    """Rows as (original, copies): each epoch shows every training row's original (if kept) and `n_aug` copies,
    each copy changed by one sub-policy drawn for that row, epoch and copy.

    `balance`: `n_aug` is for rows of the commonest class; rows of the others get as many more, up to 64, as make their
    classes equally large.
    """

    n_aug: Annotated[int, Field(ge=0, le=64)] = 0
    keep_original: bool = True
    balance: bool = False
    policy: tuple[tuple[_Operation, ...], ...] = ()


class Protect(Config):
    """Words no augmentation may touch: negators, numbers, and any listed `words`.

    `label_words`: share of the running words of the training rows that is protected because it carries the label: the
    words that stand with one label rather than with others (log-odds, Monroe et al. 2008), those that say most first.
    In Chinese they are of `segmentation`. Reconstruction, which also applies where there are no labels, is not bound.
    """

    negators: bool = True
    numbers: bool = True
    words: tuple[str, ...] = ()
    label_words: Probability = 0.0


class InputSide(Config):
    """What the model reads. `reconstruct` also applies at evaluation and serving; `augment` never does.

    `segmentation`: the unit of Chinese, its characters or words found by jieba (the extra `bothways[zh]`).
    `sample_mixing`: training rows of other domains.
    """

    reconstruct: tuple[Transform, ...] = ()
    augment: Augment = Augment()
    protect: Protect = Protect()
    segmentation: Literal["character", "word"] = "character"
    sample_mixing: SampleMixing = SampleMixing()

    @field_validator("reconstruct")
    @classmethod
    def _is_no_augmentation(cls, transforms: tuple[Any, ...]) -> tuple[Any, ...]:
        for transform in transforms:
            if transform.train_only:
                raise ValueError(f"{transform.name} is an augmentation: it belongs under `augment`, not `reconstruct`")
        return transforms


class OutputSide(Config):
    """What the model is asked to learn (`objectives`), how these are weighed against each other (`weighting`), and
    which parameters may move (`trainable`)."""

    objectives: Annotated[tuple[_Term, ...], Field(validate_default=True)] = ({"name": "cross_entropy"},)  # type: ignore[assignment]
    weighting: Annotated[Weighting, Field(validate_default=True)] = {"name": "weighted_sum"}  # noqa: RUF012
    trainable: Annotated[Trainable, Field(validate_default=True)] = {"name": "full"}  # noqa: RUF012 (pydantic copies it)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The summands that count."""
        return tuple(term for term in self.objectives if term.weight > 0)

    def for_classes(self, counts: Sequence[int]) -> OutputSide:
        """The same for training rows of which `counts` are of each class."""
        terms = [t.model_copy(update={"objective": t.objective.for_classes(counts)}) for t in self.objectives]
        return self.model_copy(update={"objectives": tuple(terms)})

    def for_tasks(self, classes: Sequence[int]) -> OutputSide:
        """The same beside auxiliary tasks of so many `classes` each."""
        terms = [t.model_copy(update={"objective": t.objective.for_tasks(classes)}) for t in self.objectives]
        return self.model_copy(update={"objectives": tuple(terms)})

    @property
    def beside(self) -> tuple[Beside, ...]:
        """The rows that they read beside those of a batch, each kind once."""
        kinds = (term.objective.beside for term in self.terms)
        return tuple(dict.fromkeys(kind for kind in kinds if kind is not None))

    @field_validator("objectives")
    @classmethod
    def _asks_for_something(cls, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        if not any(term.weight > 0 for term in terms):
            raise ValueError("needs at least one objective with a weight above 0, such as cross_entropy")
        return terms


class Experiment(Config):
    """One fine-tuning in full: data, model, task, both sides, optimiser, seed.

    Everything that a result depends on is here, and nothing else: same experiment, same numbers.
    """

    seed: int = 0
    task: Annotated[Task, Field(validate_default=True)] = {"name": "classification"}  # noqa: RUF012 (pydantic copies it)
    data: Data
    model: Model = Model()
    input: InputSide = InputSide()
    output: OutputSide = Field(default_factory=OutputSide)
    optim: Optim = Optim()

    @model_validator(mode="after")
    def _has_what_it_mixes(self) -> Experiment:
        refuse_impossible(self.input.sample_mixing, self.data.mix, self.optim.batch_size)
        refuse_nothing_beside(self.output.beside, self.data)
        return self

    _task_fits = model_validator(mode="after")(refuse_misfit)

    def spec(self) -> dict[str, Any]:
        """Plain data that builds this experiment again."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Identity: 16 hex digits over every field; no preparations and no other names of labels leave no trace."""
        spec = self.spec()
        if not self.model.prepare:
            del spec["model"]["prepare"]
        if not self.data.label_names:
            del spec["data"]["label_names"]
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


class Run(Config):
    """Where and with what: workers, devices, storage. Changing it never changes an experiment's identity.

    `lanes`: trials at once (null: what the cluster holds, also when it grows or shrinks). `workers`: DDP ranks of one
    trial. `threads`: per worker.
    `renew_after`: trials after which a lane gets new processes; null: it keeps them. `execution: cold` renews after
    each trial.
    `stall_timeout_s`: seconds without any progress before the run is ended and names what it waited for.
    """

    workers: Count = 1
    lanes: Count | None = None
    cpus_per_worker: Annotated[float, Field(gt=0.0)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0.0)] | Literal["auto"] = "auto"
    threads: Count = 1
    execution: Literal["warm", "cold"] = "warm"
    renew_after: Count | None = None
    address: str | None = None
    storage: str = "runs"
    tracking_uri: str | None = None
    max_failures: Annotated[int, Field(ge=0)] = 3
    stall_timeout_s: Annotated[float, Field(gt=0.0)] = 300.0

    @property
    def trials_per_group(self) -> int | None:
        """How many trials one group of workers runs before another takes its place; None: as many as there are."""
        return 1 if self.execution == "cold" else self.renew_after


class Pipeline(Config):
    """One file of `pipelines/`: what is run."""

    name: Name
    description: str = ""
    experiment: Experiment
    search: Search | None = None
    few_shot: MaybeFewShot = None
    run: Run = Run()

    @model_validator(mode="after")
    def _metrics_exist(self) -> Pipeline:
        refuse_search(self)
        names = self.goals().names if self.search else ()
        asked = [name for name in names if name.startswith("text/perplexity")]
        if asked and self.search and not self.search.perplexity:
            raise UserError(f"{asked[0]} needs a language model: set search.perplexity, to asset:smollm2-135m for one")
        return self

    def goals(self) -> Goals:
        """What the search is after. Raises `UserError` for a metric that no report has."""
        assert self.search is not None
        directions = self.experiment.task.directions
        known, metric = measures(directions), f"selection/{self.search.metric}"
        for name in self.search.constraints:
            check(name, "search.constraints", known)
        return Goals(
            metric=metric,
            mode=directions[self.search.metric],
            also=objectives(self.search.also, metric, known),
            bounds=self.search.constraints,
        )

    @model_validator(mode="after")
    def _folds_once(self) -> Pipeline:
        if self.search and self.search.folds and self.experiment.data.fold:
            raise UserError("search.folds divides the rows into folds itself: leave experiment.data.fold out")
        if self.search and self.search.repeats > 1 and not self.search.folds:
            raise UserError(f"search.repeats {self.search.repeats} repeats a cross-validation: give search.folds too")
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> Pipeline:
        rows, workers = self.experiment.optim.batch_size, self.run.workers
        if rows % workers:
            raise UserError(f"experiment.optim.batch_size {rows} cannot be divided by run.workers {workers}")
        return self
