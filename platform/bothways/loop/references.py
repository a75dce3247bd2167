"""`stage:NAME` in a pipeline: what of another stage is meant, found by where it stands.

`stage:a|b` is whichever of the two ran last.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bothways.config.shape import Path, dotted
from bothways.errors import UserError
from bothways.loop.stages import Gift

PREFIX = "stage:"
_DATA = ("source", "selection_source", "test_source", "unlabelled_source")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`names`: the stages, of which the one that ran last is meant. `path`: where it stands."""

    gift: Gift
    names: tuple[str, ...]
    path: Path = ()

    def __str__(self) -> str:
        return f"{PREFIX}{'|'.join(self.names)}"


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(PREFIX)


def names(value: str) -> tuple[str, ...]:
    return tuple(value.removeprefix(PREFIX).split("|"))


def strings(tree: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every text in plain data, with its path."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from strings(value, (*path, key))
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from strings(value, (*path, number))


def found(experiment: Mapping[str, Any]) -> Iterator[Reference]:
    """The references in an experiment's spec. Raises `UserError` where none may stand."""
    for path, value in strings(experiment):
        if is_reference(value):
            yield Reference(gift=_gift(path, value), names=names(value), path=path)


def _gift(path: Path, value: str) -> Gift:
    """What is meant at a path of an experiment."""
    if path == ("model", "source"):
        return "model"
    if path[0] == "data" and (path[-1] in _DATA):
        return "rows"
    if path[0] == "input" and path[-1] == "path":
        return "lexicon"
    if path[0] == "input" and path[-1] == "model":
        return "model"
    raise UserError(
        f"{dotted(path)}: {value!r} cannot stand here: a stage gives model.source, data.source, a transform's path or "
        "model, and, as the stage's `policy`, an input side"
    )


def replaced(experiment: Mapping[str, Any], put: Callable[[Reference], str]) -> dict[str, Any]:
    """An experiment's spec with every reference replaced by what `put` makes of it."""
    spec: dict[str, Any] = copy.deepcopy(dict(experiment))
    for reference in found(experiment):
        holder: Any = spec
        for part in reference.path[:-1]:
            holder = holder[part]
        holder[reference.path[-1]] = put(reference)
    return spec


def digest(content: Any) -> str:
    """16 hex digits over plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
