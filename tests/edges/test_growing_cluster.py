"""The lanes follow the cluster: a node that joins brings some; one that is lost takes them, but no trial."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos]


def test_trials_go_on_while_a_node_joins_and_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.edges.growing", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["lanes"] == [1, 2, 1]
    ends = {e["trial"]: e["status"] for e in told["events"] if e["kind"] == "end"}
    assert ends[told["lost"]] == "finished"
    assert set(ends.values()) == {"finished"}
    assert set(Counter(e["trial"] for e in told["events"] if e["kind"] == "end").values()) == {1}
    notes = [e["note"] for e in told["events"] if e["kind"] == "lane" and e["lane"] == 1]
    assert notes[1] == "its worker died"
    assert told["closing_s"] < 45
