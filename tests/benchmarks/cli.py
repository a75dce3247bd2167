"""What a person waits for at the command line: wall seconds, ours and the peer's in turns, the best of a few.

    python tests/benchmarks/cli.py [help check tune] [--turns 5]

`help`: `bothways --help` beside `ray --help`; a bare interpreter is the limit. `check`: every pipeline of this project
checked with its space, beside `import ray`, which alone would take longer. `tune`: from the command to the first report
of `make tune`, beside what no sweep on Ray can avoid: a cluster, and a process in it that has imported a model class.
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import row

ROOT = Path(__file__).parents[2]
BARE = [sys.executable, "-c", "pass"]
OURS = [sys.executable, "-m", "bothways"]
FLOOR = """
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
ray.get(ray.remote(lambda: __import__("transformers").BertModel and None).remote())
"""


def seconds(command: list[str]) -> float:
    """From the start of a command to its end."""
    return timed(command)[0]


def timed(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_report() -> float:
    """From the start of `bothways tune` to its first report; the sweep is then interrupted."""
    with tempfile.TemporaryDirectory() as storage:
        command = [*OURS, "tune", "pipelines/sentiment.yaml", f"run.storage={storage}"]
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
            assert sweep.stdout is not None
            said = []
            for line in sweep.stdout:
                said.append(line)
                if " step " in line:
                    break
            taken = time.perf_counter() - began
            sweep.send_signal(signal.SIGTERM)  # a shell may have had SIGINT ignored
            sweep.communicate()
    assert " step " in said[-1], "".join(said)
    return taken


def best(turns: int, *sides: Callable[[], float]) -> list[float]:
    """The least of `turns` measurements of each side, taken in turns."""
    found = [[side() for side in sides] for _ in range(turns)]
    return [min(column) for column in zip(*found, strict=True)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("rows", nargs="*", help="of help, check, tune; all of them when none is named")
    options.add_argument("--turns", type=int, default=5)
    chosen = options.parse_args()
    wanted = chosen.rows or ["help", "check", "tune"]
    if "help" in wanted:
        ray = str(Path(sys.executable).parent / "ray")
        ours, peer, bare = best(
            chosen.turns, lambda: seconds([*OURS, "--help"]), lambda: seconds([ray, "--help"]), lambda: seconds(BARE)
        )
        cpu = timed([*OURS, "--help"])[1]
        row(what="bothways --help", ours=ours, peer=peer, ratio=peer / ours, floor=bare, limit=0.3, unit="s", cpu=cpu)
    if "check" in wanted:
        files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "pipelines").glob("*.yaml"))]
        ours, peer = best(
            chosen.turns,
            lambda: seconds([*OURS, "check", *files]),
            lambda: seconds([sys.executable, "-c", "import ray"]),
        )
        cpu, what = timed([*OURS, "check", *files])[1], f"bothways check, {len(files)} files"
        row(what=what, ours=ours, peer=peer, ratio=peer / ours, limit=1.0, unit="s", cpu=cpu)
    if "tune" in wanted:
        ours, floor = best(2, first_report, lambda: seconds([sys.executable, "-c", FLOOR]))
        row(what="bothways tune, to the first report", ours=ours, floor=floor, ratio=ours / floor, limit=30.0, unit="s")


if __name__ == "__main__":
    main()
