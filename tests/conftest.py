"""What every test may count on: no network, no telemetry, one thread, and no Ray in the default tier."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

# Set before anything heavy is imported: libraries read these once, at import.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    RAY_USAGE_STATS_ENABLED="0",
    MLFLOW_DISABLE_TELEMETRY="true",
    OMP_NUM_THREADS="1",  # torch's threads, without importing torch here
    MKL_NUM_THREADS="1",
)

# A test runner in the background ignores Ctrl-C, and whatever it starts would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def default_tier_never_imports_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """The fast tier stays fast only while nobody, not even at collection, imports Ray."""
    yield
    if "not ray" in request.config.option.markexpr:
        assert "ray" not in sys.modules, "a test of the default tier (or its collection) imported ray"
