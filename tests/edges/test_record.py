"""What a sweep can be resumed from survives a kill in the middle of a line."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


def test_a_line_cut_short_is_cut_off_and_what_follows_is_read_again(tmp_path: Path) -> None:
    from bothways.edges.hub import Event, Job, Outcome
    from bothways.edges.record import Record
    from bothways.results import Report

    file = tmp_path / "events.jsonl"
    job = Job(trial_id="000-control", experiment={"seed": 0}, directory="", knobs={"optim.lr": 1e-4})
    report = Report(step=5, steps=9, metrics={"m": 0.5}, seconds=1.0)
    record = Record(file)
    record(Event(kind="begin", at=0.0, trial_id="000-control", job=job))
    record(Event(kind="report", at=1.0, trial_id="000-control", report=report))
    with file.open("a") as out:
        out.write('{"kind": "end", "trial_id": "000-con')

    again = Record.replay(file)
    assert again.trials["000-control"].value("m") == 0.5
    assert again.trials["000-control"].outcome is None
    outcome = Outcome(trial_id="000-control", status="failed", error="a\u2028b")
    again(Event(kind="end", at=2.0, trial_id="000-control", outcome=outcome))
    third = Record.replay(file)
    assert third.trials["000-control"].outcome == outcome
    assert [trial.number for trial in third.searched] == [0]
