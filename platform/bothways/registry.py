"""A name becomes a component. A family is a folder; a member is the file of that folder that bears its name.

Only the file asked for is imported, so that `bothways check` never pays for methods a config does not use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from bothways.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Range:
    """Where a search looks for a number, both ends included: `p: Annotated[float, Field(ge=0), Range(0.05, 0.5)]`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choices:
    """What a search chooses from: `method: Annotated[str, Choices("fgm", "pgd")]`."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)


def unless(default: Any) -> Any:
    """A knob that came later: written down only where it has another value, so that the digests of older experiments
    stay what they were."""
    return Field(exclude_if=lambda value: value == default)


class Component(BaseModel):
    """A part that is its own config: frozen, its fields are its knobs, its call is its behaviour.

    `term`, `source`: the field's word for the method and the paper it follows (printed by `bothways list`).
    `neutral`: knobs with which the method does nothing at all (a contract test); empty where there are none.
    A knob's default search range is a `Range` or `Choices` in its annotation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    term: ClassVar[str] = ""
    source: ClassVar[str] = ""
    neutral: ClassVar[Mapping[str, Any]] = {}

    def spec(self) -> dict[str, Any]:
        """The mapping that builds this component again: its name and every knob."""
        return {"name": self.name, **self.model_dump(mode="json")}


C = TypeVar("C", bound=Component)
Member = TypeVar("Member", bound=Component)


class Registry(Generic[C]):
    """The members of one family.

    `packages` are the folders (import paths) whose files are the members: `random_swap.py` registers `random_swap`.
    """

    def __init__(self, family: str, *packages: str) -> None:
        self.family = family
        self.packages = packages
        self._members: dict[str, type[C]] = {}

    def register(self, name: str) -> Callable[[type[Member]], type[Member]]:
        """Class decorator. Raises `ValueError` when the name is taken by another class."""

        def add(member: type[Member]) -> type[Member]:
            taken = self._members.get(name)
            if taken is not None and taken.__qualname__ != member.__qualname__:
                raise ValueError(f"{self.family} {name!r} is registered twice: {taken.__module__}, {member.__module__}")
            member.name = name
            self._members[name] = member  # type: ignore[assignment]
            return member

        return add

    def _files(self) -> dict[str, str]:
        """Every member's name and the module it lives in, read from the folders, nothing imported."""
        root = Path(__file__).parent
        return {
            file.stem: f"{package}.{file.stem}"
            for package in self.packages
            for file in sorted((root / Path(*package.split(".")[1:])).glob("*.py"))
            if not file.stem.startswith("_")
        } | {name: member.__module__ for name, member in self._members.items()}

    def names(self) -> list[str]:
        return sorted(self._files())

    @property
    def field(self) -> Any:
        """The type of a field that holds a member: built from `{name: …}`, dumped back to the same mapping."""
        return Annotated[
            Any,
            BeforeValidator(self.build),
            PlainSerializer(lambda component: component.spec()),
            Field(json_schema_extra={"x-family": self.family}),
        ]

    def get(self, name: str) -> type[C]:
        """The class registered as `name`, in its own file or by an installed package: see `installed`.

        Raises `UserError` with the nearest name when there is none.
        """
        if name not in self._members:
            known = installed(self.family) | self._files()
            if name not in known:
                raise UserError(f"unknown {self.family} {name!r}: {did_you_mean(name, known)}")
            importlib.import_module(known[name])
        return self._members[name]

    def build(self, spec: Any) -> C:
        """A component from `{name: …, knob: …}`, from a bare name, or itself.

        Raises `UserError` for an unknown name, pydantic's `ValidationError` for a bad knob.
        """
        if isinstance(spec, Component):
            return spec  # type: ignore[return-value]
        if isinstance(spec, str):
            spec = {"name": spec}
        if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
            raise UserError(f"a {self.family} is a name or a mapping with a `name`, not {spec!r}")
        return self.get(spec["name"])(**{key: value for key, value in spec.items() if key != "name"})


@cache
def installed(family: str) -> dict[str, str]:
    """The members that installed packages add: the name and the module of each of their entry points in the group
    `bothways.FAMILY`. The module registers the member under that name when it is imported."""
    return {point.name: point.module for point in entry_points(group=f"bothways.{family}")}


TRANSFORMS: Registry[Any] = Registry(
    "transform",
    "bothways.input_side.augment",
    "bothways.input_side.reconstruct",
    "bothways.input_side.adapt",
)
PREPARATIONS: Registry[Any] = Registry("preparation", "bothways.input_side.prepare")
OBJECTIVES: Registry[Any] = Registry("objective", "bothways.output_side.objectives", "bothways.joint.objectives")
TRAINABLES: Registry[Any] = Registry("trainable", "bothways.output_side.trainable")
TASKS: Registry[Any] = Registry("task", "bothways.tasks")
REWARDS: Registry[Any] = Registry("reward", "bothways.output_side.rewards")
WEIGHTINGS: Registry[Any] = Registry("weighting", "bothways.joint.weightings")
META: Registry[Any] = Registry("meta-learner", "bothways.joint.meta")

FAMILIES: dict[str, Registry[Any]] = {
    r.family: r for r in (TRANSFORMS, PREPARATIONS, OBJECTIVES, REWARDS, WEIGHTINGS, META, TRAINABLES, TASKS)
}
