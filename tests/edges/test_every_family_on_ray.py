"""Every family of models at every task, through one lane of a real Ray a task: the numbers of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bothways.config import Run
from bothways.registry import TASKS
from tests.edges.test_ray_trial import numbers, through_lanes

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("name", TASKS.names())
def test_a_task_with_every_family_through_one_lane(cluster: Any, name: str, tmp_path: Path) -> None:
    from bothways.edges import local
    from tests.every_family import PAIRS, made

    families = [family for family, task in PAIRS if task == name]
    experiments = [made(family, name)[0] for family in families]
    data = made(families[0], name)[1]
    found = through_lanes(experiments, tmp_path / "there", data=data)
    for family, experiment, there, seen in zip(families, experiments, *found, strict=True):
        assert there.status == "finished", (family, there.error)
        here = local.run(experiment, Run(), trial_id="x", directory=tmp_path / family, dataset=data, score_test=True)
        assert numbers(seen) == numbers(here.reports), family
        assert there.test == here.test, family
