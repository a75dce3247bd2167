"""What the tests of training share."""

from __future__ import annotations

import pytest

from bothways.training.workspace import Workspace


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return Workspace()


@pytest.fixture
def a_checkpoint_at_every_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothways.training.trial.CHECKPOINT_SHARE", 1e9)
