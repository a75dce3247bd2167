"""What every test may count on: no network, no telemetry, one thread, and no Ray in the default tier."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

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

# A check of a change says the same of it every time; `pytest --hypothesis-profile explore` draws new examples.
settings.register_profile("explore", derandomize=False)
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def default_tier_never_imports_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """The fast tier stays fast only while nobody, not even at collection, imports Ray."""
    yield
    if "not ray" in request.config.option.markexpr:
        assert "ray" not in sys.modules, "a test of the default tier (or its collection) imported ray"


@pytest.fixture(scope="module")
def cache_aside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that has what the real one has, and takes what a module's tests put into it away with them."""
    from bothways.assets import root

    here = tmp_path_factory.mktemp("cache")
    (here / "lexicons").mkdir()
    for name in ("assets", "packages"):
        if (root() / name).exists():
            (here / name).symlink_to(root() / name)
    for folder in (root() / "lexicons").glob("[!.]*"):
        (here / "lexicons" / folder.name).symlink_to(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOTHWAYS_CACHE", str(here))
        yield here
