"""The lanes follow the cluster: a node that joins brings some; one that is lost takes them, but no trial."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.edges import growing

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos]


def test_a_search_goes_on_while_a_node_joins_and_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.edges.growing", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["lanes"] == [1, 2, 1]
    began = [e for e in told["events"] if e["kind"] == "begin"]
    assert {e["lane"] for e in began} == {0, 1}
    ended = Counter(e["trial"] for e in told["events"] if e["kind"] == "end")
    assert len(ended) == growing.TRIALS
    assert set(ended.values()) == {1}
    assert {e["status"] for e in told["events"] if e["kind"] == "end"} == {"finished"}
    lost = [e for e in told["events"] if e["kind"] == "lane" and not e["note"].startswith("started")]
    assert lost, "the lost node's lane was never missed"
    assert told["closing_s"] < 45
