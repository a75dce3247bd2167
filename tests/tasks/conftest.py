"""What the tests of tasks share."""

from __future__ import annotations

import pytest


@pytest.fixture
def a_checkpoint_at_every_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothways.training.trial.CHECKPOINT_SHARE", 1e9)
