"""How experiments are proposed, stopped, chosen and confirmed: the `search:` section of a pipeline file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bothways.config.goals import Also, Bound
from bothways.config.strict import Config, Count


class Search(Config):
    """How experiments are proposed. `space`: a space file, relative to the pipeline file that names it.

    `metric`: of the selection rows, at a trial's last report; whether more or less is better is the task's to say.
    Where classes are of unequal size, `macro_f1` counts each of them alike.

    `folds`, `repeats`: a trial is `repeats` x `folds` trainings in a row, each on a fold of the training and selection
    rows, and the metric is over all rows scored so far; null: one training on the splits as they are.

    `screen`: so many input sides of the space are judged by forward passes of two control models before the search, and
    the best begin it (0: none).
    ASHA: a trial may be stopped at the rungs `grace_steps` x `reduction_factor`^k of optimiser steps, at the first
    report (`optim.evaluate_every`) at or after each. `grace_steps`: null is a quarter of a trial's steps.
    `finalists`: the best so many finished trials and the control are trained again with `finalist_seeds` fresh seeds
    each, and the best mean on the selection rows wins (0 seeds: the search's own scores decide).
    `confirm_seeds`: fresh seeds with which control and winner are both trained again and scored on the test rows.
    `constraints`: bounds that a trial must keep to be chosen: `{text/fidelity: {min: 0.9}}`. A trial whose copies break
    one is stopped at its first report. The control is asked nothing; where no other trial keeps them, it stands.
    `also`: objectives beside the metric: `[{metric: text/distinct_2}]`. The trials that none dominates are reported,
    and the best of them by the metric are the finalists. ASHA stops by the metric alone.
    `perplexity`: a causal language model, such as `asset:smollm2-135m`, that tells how natural it finds the copies of
    every trial; null: none.
    """

    space: str
    metric: str = "accuracy"
    trials: Count = 16
    seed: int = 0
    folds: Annotated[int, Field(ge=2)] | None = None
    repeats: Count = 1
    screen: Annotated[int, Field(ge=0)] = 0
    grace_steps: Count | None = None
    reduction_factor: Annotated[int, Field(ge=2)] = 4
    finalists: Count = 2
    finalist_seeds: Annotated[int, Field(ge=0)] = 2
    confirm_seeds: Count = 3
    constraints: dict[str, Bound] = Field(default_factory=dict)
    also: tuple[Also, ...] = ()
    perplexity: str | None = None
