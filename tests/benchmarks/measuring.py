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


COSTS_HEAD = """\
# Rows a second of one core, by two benchmarks with --costs: transforms.py and, for `models`, language_models.py.
"""


def row(**fields: object) -> None:
    """Prints one JSON line: the fields given, floats to four digits, and the machine."""
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in fields.items()}
    print(json.dumps({**rounded, "machine": machine()}, ensure_ascii=False), flush=True)


def held() -> tuple[float, float, float]:
    """MiB that this process holds, that the processes it has started hold, and what of both is memory they share, as
    Ray's object store: proportional set sizes, which count nothing twice. Needs Linux."""

    def sizes(pid: str) -> tuple[float, float]:
        try:
            fields = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        except OSError:  # it has ended
            return 0.0, 0.0
        return int(fields["Pss:"]) / 1024, int(fields.get("Pss_Shmem:", 0)) / 1024

    def below(pid: str) -> list[str]:
        try:
            lists = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
        except OSError:
            return []
        return [found for child in " ".join(lists).split() for found in (child, *below(child))]

    me, *others = [sizes(pid) for pid in (str(os.getpid()), *below(str(os.getpid())))]
    return me[0], sum(pss for pss, _ in others), sum(shared for _, shared in (me, *others))
