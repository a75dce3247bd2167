"""What a search is after: the metric that it ranks by, objectives beside that one, and bounds that others must keep.

Several objectives have no best trial but a Pareto front: those that no other is as good as in all and better in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import model_validator

from bothways.config.strict import Config
from bothways.errors import UserError, did_you_mean

Direction = Literal["max", "min"]

TEXT: Mapping[str, Direction | None] = {
    "text/changed": None,
    "text/protected_lost": "min",
    "text/words_ratio": None,
    "text/characters_ratio": None,
    "text/distinct_1": "max",
    "text/distinct_2": "max",
    "text/self_bleu": "min",
    "text/fidelity": "max",
    "text/perplexity": "min",
    "text/perplexity_ratio": "min",
}
"""What a trial's first report says of its copies, and which way is better; None: neither is."""
COSTS: Mapping[str, Direction | None] = {"cost/passes": "min", "cost/tokens": "min"}


class Bound(Config):
    """From `min` to `max`, both included; at least one of them."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("a constraint is {min: …}, {max: …} or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"nothing is at least {self.min:g} and at most {self.max:g}")
        return self

    def excess(self, value: float) -> float:
        """How far outside a value is; 0 or less within."""
        below = -np.inf if self.min is None else self.min - value
        above = -np.inf if self.max is None else value - self.max
        return float(max(below, above))

    def __str__(self) -> str:
        ends = (("at least", self.min), ("at most", self.max))
        return " and ".join(f"{word} {end:g}" for word, end in ends if end is not None)


class Also(Config):
    """An objective beside the first. `direction`: null is the metric's own."""

    metric: str
    direction: Direction | None = None


@dataclass(frozen=True, kw_only=True)
class Goals:
    """`metric`: a report's key, such as `selection/accuracy`; `also`: others with their directions; `bounds`: what a
    trial must keep to be chosen. Picklable."""

    metric: str
    mode: Direction
    also: Mapping[str, Direction] = field(default_factory=dict)
    bounds: Mapping[str, Bound] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All metrics that are looked at, the first one first."""
        return tuple(dict.fromkeys([self.metric, *self.also, *self.bounds]))

    @property
    def modes(self) -> list[Direction]:
        """The directions of all objectives, the first one first."""
        return [self.mode, *self.also.values()]

    @property
    def texts(self) -> bool:
        """Whether anything is asked of the copies."""
        return any(name in TEXT for name in self.names)

    def values(self, metrics: Mapping[str, float]) -> list[float]:
        """The objectives' values, the first one first; where one is missing, the worst."""
        objectives = {self.metric: self.mode, **self.also}
        return [metrics.get(name, worst(mode)) for name, mode in objectives.items()]

    def excesses(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """How far each bounded metric is outside (0 or less within); a missing one is outside by 1."""
        return {name: bound.excess(metrics[name]) if name in metrics else 1.0 for name, bound in self.bounds.items()}

    def kept(self, metrics: Mapping[str, float]) -> bool:
        """Whether all bounds are kept."""
        return all(excess <= 0 for excess in self.excesses(metrics).values())

    def hopeless(self, metrics: Mapping[str, float]) -> bool:
        """Whether a bound is broken that training cannot mend: what the copies are does not change any more."""
        told = {name: bound for name, bound in self.bounds.items() if name in TEXT and name in metrics}
        return any(bound.excess(metrics[name]) > 0 for name, bound in told.items())

    def front(self, trials: Sequence[Mapping[str, float]]) -> list[int]:
        """The positions of those that keep the bounds and that none of these dominates, best by the first metric first.

        With one objective: all that keep the bounds, in that order.
        """
        able = [i for i, metrics in enumerate(trials) if self.kept(metrics)]
        values = np.array([self.values(trials[i]) for i in able]).reshape(len(able), len(self.modes))
        values *= [1.0 if mode == "max" else -1.0 for mode in self.modes]
        if self.also:
            better = [(values >= one).all(axis=1) & (values > one).any(axis=1) for one in values]
            free = [at for at, others in enumerate(better) if not others.any()]
            able, values = [able[at] for at in free], values[free]
        return [able[at] for at in np.argsort(-values[:, 0], kind="stable").tolist()]

    def unmet(self, trials: Mapping[str, Mapping[str, float]]) -> str:
        """For a search none of whose trials (by name) keeps the bounds: what was asked, and what came nearest."""
        asked = ", ".join(f"{name} {bound}" for name, bound in self.bounds.items())
        said = f"No trial kept the constraints ({asked}), so the control stands"
        outside = {name: sum(max(0.0, e) for e in self.excesses(metrics).values()) for name, metrics in trials.items()}
        if not outside:
            return f"{said}."
        nearest = min(outside, key=lambda name: outside[name])
        has = ", ".join(f"{name} {trials[nearest][name]:.4g}" for name in self.bounds if name in trials[nearest])
        return f"{said}. The nearest was {nearest} with {has}."


def worst(mode: Direction) -> float:
    """What stands for a value that there is none of: finite, so that a sampler learns to keep away."""
    return 1e9 if mode == "min" else -1e9


def measures(directions: Mapping[str, Direction]) -> dict[str, Direction | None]:
    """Every metric that a goal may name, with its direction; `directions`: the task's."""
    return {**{f"selection/{name}": mode for name, mode in directions.items()}, **TEXT, **COSTS}


def objectives(also: Sequence[Also], first: str, known: Mapping[str, Direction | None]) -> dict[str, Direction]:
    """The objectives beside `first` with their directions. Raises `UserError`."""
    found: dict[str, Direction] = {}
    for one in also:
        check(one.metric, "search.also", known)
        direction = one.direction or known[one.metric]
        if direction is None:
            raise UserError(f"search.also: neither more nor less {one.metric} is better by itself: give its direction")
        if one.metric == first or one.metric in found:
            raise UserError(f"search.also: {one.metric} is an objective already")
        found[one.metric] = direction
    return found


def check(metric: str, where: str, known: Mapping[str, Direction | None]) -> None:
    """Raises `UserError` for a metric that no report has."""
    if metric not in known:
        raise UserError(f"{where}: unknown metric {metric!r}: {did_you_mean(metric, known)}")
