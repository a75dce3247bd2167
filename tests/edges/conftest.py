"""One real local Ray cluster for all tests of the edges that need it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Ray as `bothways tune` starts it, on the machine's cores."""
    from bothways.cli.tune import quiet_ray
    from bothways.config import Run

    quiet_ray()
    import ray

    from bothways.edges.ray_cluster import start_ray

    start_ray(Run(storage=str(tmp_path_factory.mktemp("storage"))))
    yield ray
    ray.shutdown()
