"""The pages of `bothways policy preview`: texts beside what a policy makes of them."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import groupby
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bothways import policy
from bothways.cli.difference import GONE, NEW, Change, changes, coloured, marked, printable
from bothways.config import Experiment
from bothways.errors import UserError
from bothways.policy import apply as policy_apply

LIMIT = 600  # characters of a text that are shown


class Line(NamedTuple):
    """One column of one copy of a row: what became of it. `by`: the number of its sub-policy, from 0; -1 without."""

    row: int
    label: Any
    copy: int
    column: str
    by: int
    found: list[Change]

    @property
    def same(self) -> bool:
        return all(change.same for change in self.found)


class Preview:
    """The first `rows` rows of a source under the policy of an experiment, at the share `at` of a training."""

    def __init__(self, source: policy_apply.Source, experiment: Experiment, rows: int, at: float | None) -> None:
        policy.check(experiment.input, experiment.data.language)
        augment = experiment.input.augment
        if not (augment.n_aug and augment.policy) and not experiment.input.reconstruct:
            why = (
                "n_aug is 0: give --copies 1 to see what a copy would be" if augment.policy else "it has no operations"
            )
            raise UserError(f"this policy changes nothing: {why}")
        self._experiment = experiment
        counted = policy_apply.statistics(source, experiment)
        block = next(source.blocks(max(rows, 100)), None)
        if block is None or not block.table.num_rows:
            raise policy_apply.nothing(source, block)
        self._rows = block.table.slice(0, rows)
        self._labels = block.labels
        views = policy_apply.views(self._rows, experiment, at)
        self._drawn = policy.sub_policies(views, experiment.input, experiment.seed)
        self._views, self._read = views, policy_apply.read(views, experiment, counted)

    def lines(self) -> list[Line]:
        """What became of each text; originals only where something reconstructs them."""
        found = []
        per_row = self._views.num_rows // self._rows.num_rows
        for at, copy in enumerate(self._views["copy"].to_pylist()):
            if copy == 0 and not self._experiment.input.reconstruct:
                continue
            row = at // per_row
            label = None if self._labels is None else self._labels[row]
            for column in ("text", "pair"):
                old, new = (table[column][at].as_py() for table in (self._views, self._read))
                if old is not None:
                    difference = changes(old, new, self._experiment.input.segmentation)
                    found.append(Line(row + 1, label, copy, column, int(self._drawn[at]), difference))
        return found

    def print(self, heading: str) -> None:
        """Side by side and in colours on a terminal; one text a line with marks elsewhere."""
        lines = self.lines()
        console = Console(highlight=False)
        if console.is_terminal:
            console.print(Text(heading, "bold"), "")
            console.print(self._table(lines), "")
            console.print(Text.assemble(("gone", GONE), "  ", ("new", NEW), "   ", self._summary(lines)))
            return
        sys.stdout.write(f"{heading}\n[-gone-] {{+new+}}\n")
        for (row, label), copies in groupby(lines, key=lambda line: (line.row, line.label)):
            sys.stdout.write(f"\nrow {row}{'' if label is None else f', label {printable(str(label))}'}\n")
            for line in copies:
                what = f"copy {line.copy}{', pair' if line.column == 'pair' else ''} ({self._by(line.by)})"
                sys.stdout.write(f"  {what}: {'unchanged' if line.same else marked(line.found, 2 * LIMIT)}\n")
        sys.stdout.write(f"\n{self._summary(lines)}\n")

    def _table(self, lines: list[Line]) -> Table:
        augment = self._experiment.input.augment
        labelled, several = self._labels is not None, len(augment.policy) > 1
        numbered = len({line.copy for line in lines}) > 1
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True)
        table.add_column("row", style="dim", no_wrap=True)
        if labelled:
            table.add_column("label", style="cyan", max_width=14, overflow="fold")
        table.add_column("original", ratio=1, overflow="fold")
        table.add_column("copy", ratio=1, overflow="fold")
        if several:
            table.add_column("by", style="dim", no_wrap=True)
        for _, group in groupby(lines, key=lambda line: line.row):
            for line in group:
                old, new = coloured(line.found, LIMIT)
                head = f"{line.row}{f'.{line.copy}' if numbered else ''}{' pair' * (line.column == 'pair')}"
                cells: list[Text | str] = [head, old, Text("unchanged", "dim italic") if line.same else new]
                if labelled:
                    cells.insert(1, Text(printable(str(line.label))))
                table.add_row(*cells, *([str(line.by + 1) if line.by >= 0 else ""] if several else []))
            table.add_section()
        return table

    def _by(self, number: int) -> str:
        """A sub-policy's number and operations."""
        if number < 0:
            return "reconstruction alone"
        operations = self._experiment.input.augment.policy[number]
        return f"{number + 1} {' + '.join(operation.transform.name for operation in operations)}"

    def _summary(self, lines: list[Line]) -> str:
        changed = sum(not line.same for line in lines)
        counts = sorted(Counter(line.by for line in lines).items())
        by = ", ".join(f"{self._by(number)} ({count})" for number, count in counts)
        return f"{changed} of {len(lines)} texts changed, by {by}"
