"""What the benchmarks share: what this machine is, how a row is printed, how much memory is held."""

import functools
import json
import os
import platform
from pathlib import Path


@functools.cache
def machine() -> str:
    """The processor's name and the cores this process may use, e.g. `Intel(R) Xeon(R) …, 2 cores`."""
    name = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def row(**fields: object) -> None:
    """Prints one JSON line: the fields given, floats to four digits, and the machine."""
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in fields.items()}
    print(json.dumps({**rounded, "machine": machine()}, ensure_ascii=False), flush=True)


def held() -> tuple[float, float]:
    """MiB that this process and the processes it has started hold: proportional set sizes, which count shared memory
    once. Needs Linux."""

    def pss(pid: str) -> float:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # it has ended
            return 0.0
        return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024

    def below(pid: str) -> list[str]:
        try:
            lists = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
        except OSError:
            return []
        return [found for child in " ".join(lists).split() for found in (child, *below(child))]

    me = str(os.getpid())
    return pss(me), sum(map(pss, below(me)))
