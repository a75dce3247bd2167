"""What a person watches during a sweep: a table that renews itself on a terminal, a line at a time elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from bothways.edges.hub import Event

STYLES = {"finished": "green", "stopped": "yellow", "interrupted": "yellow", "failed": "red", "training": "cyan"}


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """A line for people, in parts with or without a style. Names, paths and errors are text, never markup."""
    console.print(Text.assemble(*parts), highlight=False, soft_wrap=True)


@dataclass
class _Row:
    began: float
    step: int = 0
    steps: int = 0
    score: float | None = None
    loss: float | None = None
    status: str = "training"
    seconds: float = 0.0
    note: str = ""


@dataclass
class View:
    """A sink of hub events. `metric` is the column that counts; `total` the number of trials to come."""

    metric: str
    mode: str
    total: int
    console: Console = field(default_factory=Console)

    def __post_init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._began = time.monotonic()
        self._status = "starting Ray and the lanes"
        self._live = Live(console=self.console, get_renderable=self._table, refresh_per_second=4, transient=False)

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if event.kind == "lane":
            self._status = f"lane {event.lane} {event.note}"
            self._say(self._status)
            return
        row = self._rows.setdefault(event.trial_id, _Row(began=event.at))
        if event.kind == "begin":
            row.status = "training"
        elif event.report is not None:
            row.step, row.steps = event.report.step, event.report.steps
            row.score = event.report.metrics.get(self.metric)
            row.loss = event.report.metrics.get("train/loss")
            self._say(f"{event.trial_id:<40} step {row.step:>5}/{row.steps} {self.metric} {_number(row.score)}")
        elif event.outcome is not None:
            ended = event.outcome
            row.status, row.note = ended.status, ended.error or _test(ended.test) or ended.note
            self._say(f"{event.trial_id:<40} {row.status} {row.note}".rstrip())
        row.seconds = event.at - row.began

    def _say(self, line: str) -> None:
        if not self.console.is_terminal:
            say(self.console, f"{time.monotonic() - self._began:7.1f} s  {line}")

    def _best(self) -> str:
        sign = -1 if self.mode == "min" else 1
        done = {
            name: sign * r.score for name, r in self._rows.items() if r.status == "finished" and r.score is not None
        }
        return max(done, key=lambda name: done[name]) if done else ""

    def _table(self) -> Any:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, justify in (("trial", "left"), ("step", "right"), ("loss", "right"), (self.metric, "right")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("seconds", justify="right")
        table.add_column("", no_wrap=True)
        best = self._best()
        room = max(5, self.console.size.height - 6)
        for name, row in list(self._rows.items())[-room:]:
            table.add_row(
                Text(name, style="bold green" if name == best else ""),
                f"{row.step}/{row.steps or '?'}",
                _number(row.loss),
                _number(row.score),
                f"{row.seconds:.0f}",
                Text(f"{row.status} {row.note}".strip(), style=STYLES.get(row.status, "")),
            )
        ended = sum(row.status != "training" for row in self._rows.values())
        state = f"{ended}/{self.total} trials, {time.monotonic() - self._began:.0f} s"
        return Group(
            table, Text(state if self._rows else f"{self._status}, {time.monotonic() - self._began:.0f} s", "dim")
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _test(metrics: Mapping[str, float]) -> str:
    shown = "accuracy" if "accuracy" in metrics else next(iter(metrics), "")
    return " ".join(f"test {key} {value:.4f}" for key, value in metrics.items() if key == shown)
