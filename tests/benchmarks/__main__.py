"""Runs the benchmarks, keeps their JSON lines, and prints them as one readable table.

    make bench                                  all of them, one after another, on a machine that does nothing else
    python tests/benchmarks training cli        some of them
    python tests/benchmarks --table FILE        the table of lines kept before

Lines go to `runs/benchmarks.jsonl` too. A benchmark that fails is named at the end, and the exit status is 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / "runs" / "benchmarks.jsonl"
NOT_ONE = {"__main__", "measuring", "text_peers"}
COLUMNS = ("benchmark", "what", "peer", "unit", "ours", "theirs", "ratio", "limit", "share_of_limit")
UNTOLD = {*COLUMNS, "machine"}


def lines(name: str) -> Iterator[dict[str, Any]]:
    """What a benchmark prints, as it prints it. Raises `CalledProcessError` when it fails."""
    with subprocess.Popen([sys.executable, str(HERE / f"{name}.py")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield {"benchmark": name, **json.loads(line)}
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, name)


def table(rows: Iterable[dict[str, Any]]) -> Table:
    """The columns that most rows have, and everything else in the last one."""
    made = Table(*COLUMNS, "more", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        more = ", ".join(f"{key} {value}" for key, value in row.items() if key not in UNTOLD and value is not None)
        made.add_row(*(_cell(row.get(column)) for column in COLUMNS), more)
    return made


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--table"]:
        show = [json.loads(line) for line in Path(arguments[1]).read_text(encoding="utf-8").splitlines()]
        Console().print(table(show))
        return 0
    names = arguments or sorted({file.stem for file in HERE.glob("*.py")} - NOT_ONE)
    found, failed = [], []
    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.open("w", encoding="utf-8") as kept:
        for name in names:
            try:
                for row in lines(name):
                    text = json.dumps(row, ensure_ascii=False)
                    print(text, flush=True)
                    kept.write(text + "\n")
                    found.append(row)
            except subprocess.CalledProcessError:
                failed.append(name)
    Console().print(table(found))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
