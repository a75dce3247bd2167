"""A knob: one thing a search may choose, its domain, and the conditions under which it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bothways.config.shape import dotted, family_at, parts, shown
from bothways.contracts import TrialLike
from bothways.errors import UserError, did_you_mean
from bothways.registry import Choices, Component, Range

Kind = Literal["choices", "float", "log", "int", "int_log"]
Point = Mapping[str, Any]
"""A value for each knob that is asked for, by dotted path."""

KINDS: tuple[Kind, ...] = ("choices", "float", "log", "int", "int_log")


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One thing to choose. `values`: the choices, or (low, high), both included. `when`: values of other knobs that
    must hold for this one to be asked. `place`: `file:line`."""

    path: str
    kind: Kind
    values: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    place: str = ""

    @property
    def count(self) -> int | None:
        """How many values there are; None for a continuous domain."""
        if self.kind == "choices":
            return len(self.values)
        return self.values[1] - self.values[0] + 1 if self.kind in ("int", "int_log") else None

    def holds(self, value: Any) -> bool:
        if self.kind == "choices":
            return any(same(value, choice) for choice in self.values)
        number = isinstance(value, int if self.count else int | float) and not isinstance(value, bool)
        return number and self.values[0] <= value <= self.values[1]

    def asked(self, point: Point) -> bool:
        """Whether its conditions hold at `point`, which has the values of the knobs before it."""
        return all(p in point and any(same(point[p], v) for v in values) for p, values in self.when.items())

    def typed(self, value: Any) -> Any:
        """The value as the searcher gives it: an integer in a file is a float in a continuous domain."""
        return float(value) if self.count is None else value

    def ask(self, trial: TrialLike) -> Any:
        """A value from `trial`; the parameter's name is the knob's path."""
        if self.kind == "choices":
            return trial.suggest_categorical(self.path, list(self.values))
        low, high = self.values
        if self.kind in ("int", "int_log"):
            return trial.suggest_int(self.path, low, high, log=self.kind == "int_log")
        return trial.suggest_float(self.path, low, high, log=self.kind == "log")

    def domain(self) -> str:
        if self.kind == "choices":
            return ", ".join(
                "null" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in self.values
            )
        return f"{self.values[0]:g} … {self.values[1]:g}"


def read_knob(path: str, written: Any, place: str) -> Knob:
    """A knob as a space file writes it: a list of choices, or a mapping of a kind and `when`. Raises `UserError`.

    Without a kind it has the range that the methods named in its `when` declare.
    """
    parts(path)
    if isinstance(written, list):
        written = {"choices": written}
    if not isinstance(written, dict):
        raise UserError(f"a knob is a list of choices or a range such as {{log: [1e-5, 1e-3]}}, not {shown(written)}")
    kinds = [key for key in written if key != "when"]
    unknown = [key for key in kinds if key not in KINDS]
    if unknown:
        raise UserError(f"unknown kind {shown(unknown[0])}: {did_you_mean(unknown[0], [*KINDS, 'when'])}")
    if len(kinds) > 1:
        raise UserError(f"needs one of {', '.join(KINDS)}, not {len(kinds)}")
    when = written.get("when", {})
    if not isinstance(when, dict):
        raise UserError(f"when is a mapping of a knob to a value or a list of values, not {shown(when)}")
    conditions = {p: tuple(v) if isinstance(v, list) else (v,) for p, v in when.items()}
    kind, values = (kinds[0], written[kinds[0]]) if kinds else _declared(path, conditions)
    if not isinstance(values, list) or not values:
        raise UserError(f"{kind} needs a list with values, not {'an empty list' if values == [] else shown(values)}")
    for value in [*values, *(v for several in conditions.values() for v in several)]:
        if not isinstance(value, str | int | float | None):
            raise UserError(f"a value is a word, a number, true, false or null, not {shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"the value {value} is not a finite number")
    return Knob(path=path, kind=kind, values=_range(kind, values), when=conditions, place=place)


def _declared(path: str, when: Mapping[str, tuple[Any, ...]]) -> tuple[Kind, list[Any]]:
    """The search range that the methods named in `when` declare for their own knob."""
    *holder, field_name = parts(path)
    names = dotted((*holder, "name"))
    family = family_at(tuple(holder))
    if family is None or not when.get(names):
        raise UserError(f"needs one of {', '.join(KINDS)} (or a `when` on {names}, to take the methods' own range)")
    members = [family.get(str(name)) for name in when[names]]
    found = [_search_range(member, str(field_name)) for member in members]
    if any(one != found[0] for one in found):
        raise UserError("the methods it is asked for declare different ranges: write one")
    return found[0]


def _search_range(member: type[Component], field_name: str) -> tuple[Kind, list[Any]]:
    info = member.model_fields.get(field_name)
    if info is None:
        raise UserError(
            f"{member.name} has no knob {shown(field_name)}: {did_you_mean(field_name, member.model_fields)}"
        )
    for mark in info.metadata:
        if isinstance(mark, Choices):
            return "choices", list(mark.values)
        if isinstance(mark, Range) and info.annotation is int:
            return "int_log" if mark.log else "int", [int(mark.low), int(mark.high)]
        if isinstance(mark, Range):
            return "log" if mark.log else "float", [mark.low, mark.high]
    raise UserError(f"{member.name} declares no search range for {field_name}: write one of {', '.join(KINDS)}")


def _range(kind: Kind, values: list[Any]) -> tuple[Any, ...]:
    """The choices without repetition, or low and high as the kind's numbers."""
    if kind == "choices":
        if len({(isinstance(v, bool), v) for v in values}) < len(values):
            raise UserError("a choice is listed twice")
        return tuple(values)
    whole = kind in ("int", "int_log")
    if len(values) != 2 or any(isinstance(v, bool) or not isinstance(v, int if whole else int | float) for v in values):
        raise UserError(f"{kind} needs two {'whole numbers' if whole else 'numbers'}: [low, high]")
    low, high = values if whole else map(float, values)
    if low >= high:
        raise UserError(f"low {low:g} is not below high {high:g}")
    if kind in ("log", "int_log") and low <= 0:
        raise UserError(f"a logarithmic range must begin above 0, not at {low:g}")
    return low, high


def wrong_conditions(knobs: Mapping[str, Knob]) -> Iterator[str]:
    """One line for each condition that names no knob, never holds, or goes round in a circle."""
    for knob in knobs.values():
        for path, values in knob.when.items():
            start = f"{knob.place}: {knob.path}: when {shown(path)}"
            if path not in knobs:
                yield f"{start}: is no knob of this space, {did_you_mean(path, knobs)}"
            elif knobs[path].count is None:
                yield f"{start}: a condition needs a knob with countable values, this one is a {knobs[path].kind} range"
            elif not values or not all(knobs[path].holds(v) for v in values):
                never = [v for v in values if not knobs[path].holds(v)]
                yield f"{start}: never is {shown(never[0]) if never else 'any of no values'} ({knobs[path].domain()})"
    done = {knob.path for knob in ordered(knobs)}
    for knob in knobs.values():
        if knob.path not in done and knob.when.keys() <= knobs.keys():
            yield f"{knob.place}: {knob.path}: its conditions go round in a circle"


def ordered(knobs: Mapping[str, Knob]) -> Iterator[Knob]:
    """Knobs as written, each after those its conditions name; those in a circle are left out."""
    done: set[str] = set()
    waiting = list(knobs.values())
    while ready := [knob for knob in waiting if knob.when.keys() <= done]:
        yield ready[0]
        done.add(ready[0].path)
        waiting.remove(ready[0])


def same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
