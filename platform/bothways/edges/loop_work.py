"""What a stage of a loop is to whoever carries it out: all that it follows from, and the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothways.loop import results
from bothways.results import Report

OnReport = Callable[[Report], None]


@dataclass(frozen=True, kw_only=True)
class Waits:
    """A stage that cannot go on before somebody has done something: what, in a sentence."""

    what: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a stage came to: see `loop.results.Result`."""

    metrics: Mapping[str, float]
    gives: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[str, str] = field(default_factory=dict)


def _always(directory: Path, result: results.Result) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Work:
    """A stage, ready. `identity`: plain data, all that it follows from. `spec`: what the record says of it.

    `do`: the work, in the stage's directory. `holds`: whether what was done there before is still right.
    """

    identity: Mapping[str, Any]
    spec: Mapping[str, Any]
    do: Callable[[Path, OnReport], Done | Waits]
    holds: Callable[[Path, results.Result], bool] = _always
