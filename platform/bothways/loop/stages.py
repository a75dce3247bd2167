"""What a loop file may say of its stages: one frozen class a kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bothways.config import Config, Language, Name
from bothways.config.domains import Column
from bothways.config.strict import Count

Kind = Literal["prepare", "train", "tune", "evaluate", "suggest_labels", "lexicon"]
Gift = Literal["model", "rows", "lexicon", "policy"]
"""What a stage gives to others."""

GIVES: Mapping[str, tuple[Gift, ...]] = {
    "prepare": ("model",),
    "train": ("model",),
    "tune": ("model", "policy"),
    "evaluate": (),
    "suggest_labels": ("rows",),
    "lexicon": ("lexicon",),
}


class Texts(Config):
    """Rows whose labels, if they have any, are not read. `source`: as `data.source`; of an asset or hub dataset with
    splits of its own, the training rows and those without labels."""

    source: str
    text: Column = "text"
    pair: Column | None = None


class Oracle(Texts):
    """Who answers where nobody is asked: rows with labels, found by their texts. `label_names`: as in `data`."""

    label: Column = "label"
    label_names: dict[str, str] = Field(default_factory=dict)


class When(Config):
    """A condition on a metric: below a number, above one, or both (between them)."""

    metric: str
    below: float | None = None
    above: float | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> When:
        if self.below is None and self.above is None:
            raise ValueError("a condition is {metric: …, below: …}, {metric: …, above: …} or both")
        return self

    def holds(self, metrics: Mapping[str, float]) -> bool:
        value = metrics[self.metric]
        return (self.below is None or value < self.below) and (self.above is None or value > self.above)

    def __str__(self) -> str:
        ends = (("below", self.below), ("above", self.above))
        return f"{self.metric} {' and '.join(f'{word} {end:g}' for word, end in ends if end is not None)}"


class Adjustment(Config):
    """What follows when a condition holds: the stage `then`, at most `rounds` times in a run of the loop."""

    when: When
    then: str
    rounds: Count = 1


class Stage(Config):
    """`name`: by which others refer to it. `then`: what follows: a stage, or `end`; null: the next one of the file."""

    name: Name
    kind: Kind
    then: str | None = None


class OnPipeline(Stage):
    """`pipeline`: a file, relative to this one; `stage:NAME`, that of an earlier stage of this file; or, written out,
    its `experiment` (and `search`). `overrides`: dotted path → value, as on the command line."""

    pipeline: str | dict[str, Any]
    overrides: dict[str, Any] = Field(default_factory=dict)


class Trained(OnPipeline):
    """`policy`: `stage:NAME` of a search whose input side is taken in place of the pipeline's own."""

    policy: str | None = None


class Prepare(OnPipeline):
    """Continued pretraining of the pipeline's model on the pipeline's texts, labels aside and never those of selection
    and test rows: `bothways prepare`. Settings that are null are those of the pipeline's own `continued_pretraining`,
    or its defaults."""

    kind: Literal["prepare"]
    steps: Count | None = None
    batch_size: Annotated[int, Field(ge=2)] | None = None
    lr: Annotated[float, Field(gt=0.0, le=1.0)] | None = None


class Train(Trained):
    """One experiment: `bothways train`."""

    kind: Literal["train"]


class Tune(Trained):
    """A search, confirmed with fresh seeds: `bothways tune`. It gives the champion and its policy."""

    kind: Literal["tune"]


class Evaluate(OnPipeline):
    """Scores `model`, a stage's or a directory, on one split of the pipeline's data. The first of `adjust` whose
    condition holds, and which has rounds left, says what follows; else it is `then`.

    A split by which something is decided has been looked at: score another one for the figure to be quoted.
    """

    kind: Literal["evaluate"]
    model: str
    split: Literal["train", "selection", "test"] = "test"
    adjust: tuple[Adjustment, ...] = ()


class SuggestLabels(Stage):
    """Picks `count` rows of `texts` for somebody to label (`bothways suggest-labels`), and gives all rows that this
    stage has ever had labelled. Left out are rows that it has had before, and the selection and test rows of every
    `evaluate` stage. Without an `oracle` the loop ends here until the file is filled in."""

    kind: Literal["suggest_labels"]
    model: str
    texts: Texts
    count: Count = 100
    seed: int = 0
    oracle: Oracle | None = None


class Lexicon(Stage):
    """Learns a vocabulary map from `source` to `target`: `bothways lexicon learn`. `model`: whose input embeddings say
    which words are alike."""

    kind: Literal["lexicon"]
    source: Texts
    target: Texts
    model: str = "asset:minilm-l6"
    language: Language = "en"
    least: Count = 5
    similarity: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.3


KINDS: Mapping[str, type[Stage]] = {
    "prepare": Prepare,
    "train": Train,
    "tune": Tune,
    "evaluate": Evaluate,
    "suggest_labels": SuggestLabels,
    "lexicon": Lexicon,
}
