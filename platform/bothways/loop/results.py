"""What a stage left in its directory, and what a loop came to: plain records, and the table of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bothways.assets.files import write_whole
from bothways.report import NO_SHARES
from bothways.results import Report

FORMAT = 1
_FILE = "result.json"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished stage. `digest`: all that it follows from. `gives`: what others may start from (model, rows, lexicon,
    policy), as paths within its directory. `identities`: a digest of each that is not told by `digest` alone.

    `began`, `ended`: Unix seconds.
    """

    digest: str
    kind: str
    metrics: Mapping[str, float]
    gives: Mapping[str, str]
    began: float
    ended: float
    identities: Mapping[str, str] = field(default_factory=dict)
    reports: Sequence[Report] = ()

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def write(directory: Path, result: Result) -> None:
    """Leave `result` in a stage's directory, complete or not at all."""
    write_whole(directory / _FILE, json.dumps({"format": FORMAT, **asdict(result)}, indent=1))


def read(directory: Path) -> Result | None:
    """What the stage of a directory came to; None when it has not finished, or what it gave is gone."""
    try:
        plain = json.loads((directory / _FILE).read_text("utf-8"))
        if plain.pop("format") != FORMAT:
            return None
        found = Result(**{**plain, "reports": tuple(Report(**report) for report in plain["reports"])})
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return found if all((directory / path).exists() for path in found.gives.values()) else None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage as it was run in a loop, or found done. `why`: what was decided after it, and on what grounds."""

    number: int
    stage: str
    kind: str
    directory: str
    metrics: Mapping[str, float]
    seconds: float
    found: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """What a loop came to. `waiting`: a sentence on what a person is to do before it goes on; empty at its end."""

    name: str
    directory: str
    tracking_uri: str
    steps: Sequence[Step]
    waiting: str = ""
    problems: Sequence[str] = ()


def rows(steps: Sequence[Step]) -> list[dict[str, str]]:
    """The table of a loop: a row a stage."""
    return [
        {
            "": str(step.number),
            "stage": step.stage,
            "kind": step.kind,
            "result": ", ".join(f"{name} {_shown(name, value)}" for name, value in step.metrics.items()),
            "seconds": f"{step.seconds:.0f}" + (", before" if step.found else ""),
            "then": step.why,
        }
        for step in steps
    ]


def _shown(name: str, value: float) -> str:
    plain = name.rsplit("/", 1)[-1]
    if plain in ("rows", "pairs", "steps", "labelled") or plain.endswith("_rows"):
        return f"{value:,.0f}"
    if plain in NO_SHARES or plain in ("loss_before", "loss_after", "uncertainty"):
        return f"{value:.3f}"
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else f"{value:.3f}"


def markdown(result: LoopResult) -> str:
    """The table as a file of its own."""
    table = rows(result.steps)
    columns = list(table[0]) if table else []
    lines = [f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *([*r.values()] for r in table)]]
    tail = ["", f"Waiting: {result.waiting}"] if result.waiting else []
    return "\n".join([f"# Loop {result.name}", "", *lines, *tail, ""])
