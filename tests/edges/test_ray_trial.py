"""Real lanes on a real Ray: the same numbers as in this process, whoever the workers are and whatever ran before."""

from __future__ import annotations

import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bothways.config import Experiment, InputSide, Run
from bothways.edges.hub import Event, Job, Outcome
from bothways.results import Report

pytestmark = pytest.mark.ray

AUGMENTED = {
    "augment": {
        "n_aug": 2,
        "policy": [[{"name": "random_deletion", "p": 0.3}], [{"name": "random_swap", "p": 0.3, "probability": 0.5}]],
    }
}


def through_lanes(
    experiments: list[Experiment],
    directory: Path,
    happened: list[Event] | None = None,
    beside: dict[str, int] | None = None,
    data: Any = None,
    **where: Any,
) -> tuple[list[Outcome], list[list[Report]]]:
    """Train the experiments one after another in one lane. `happened`: gets every event. `beside`: what the tiny
    dataset has beside its splits. `data`: what takes its place."""
    import ray

    from bothways.edges.ray_cluster import start_hub
    from bothways.edges.ray_train import Lanes
    from tests import tiny

    hub = start_hub(3)
    run = Run(lanes=1, cpus_per_worker=0.5, **where)
    ids = [f"trial-{number}" for number in range(len(experiments))]
    with Lanes(hub, ray.put(data or tiny.dataset(**beside or {})), run, directory):
        for name, experiment in zip(ids, experiments, strict=True):
            job = Job(
                trial_id=name,
                experiment=experiment.spec(),
                directory=str(directory / name),
                lock_step=False,
                score_test=True,
            )
            ray.get(hub.submit.remote(job))
        outcomes: list[Outcome] = ray.get([hub.outcome.remote(name) for name in ids])
        events = ray.get(hub.events.remote(0))
    if happened is not None:
        happened.extend(events)
    return outcomes, [[e.report for e in events if e.report and e.trial_id == name] for name in ids]


def weights(model_dir: str) -> str:
    return hashlib.sha256((Path(model_dir) / "weights.safetensors").read_bytes()).hexdigest()


def numbers(reports: list[Report] | tuple[Report, ...]) -> list[dict[str, float]]:
    """Every metric but the ones that measure time."""
    return [{k: v for k, v in r.metrics.items() if not k.startswith("time/")} for r in reports]


def test_one_worker_through_ray_gives_exactly_the_local_numbers(cluster: Any, tmp_path: Path) -> None:
    from bothways.edges import local
    from tests import tiny

    experiment = tiny.experiment(input=AUGMENTED, output={"objectives": [{"name": "rdrop", "alpha": 1.0}]})
    here = local.run(
        experiment, Run(), trial_id="x", directory=tmp_path / "here", dataset=tiny.dataset(), score_test=True
    )
    (there,), (reports,) = through_lanes([experiment], tmp_path)
    assert there.status == "finished", there.error
    assert numbers(reports) == numbers(here.reports)
    assert there.test == here.test
    assert weights(there.model_dir) == weights(here.model_dir)


def test_a_trial_in_a_warm_lane_equals_the_same_trial_in_a_cold_one(cluster: Any, tmp_path: Path) -> None:
    from tests import tiny

    probe = tiny.experiment(input=AUGMENTED)
    other = tiny.experiment(seed=9, output={"trainable": {"name": "head"}})
    (*_, warm), (*_, after) = through_lanes([other, other.model_copy(update={"seed": 3}), probe], tmp_path / "warm")
    (_, cold), (_, fresh) = through_lanes([other, probe], tmp_path / "cold", execution="cold")
    assert warm.status == cold.status == "finished", (warm.error, cold.error)
    assert weights(warm.model_dir) == weights(cold.model_dir)
    assert numbers(after) == numbers(fresh)


def test_two_ddp_workers_see_every_row_once_and_learn_what_one_learns(cluster: Any, tmp_path: Path) -> None:
    from tests import tiny

    experiment = tiny.experiment(input=AUGMENTED, model={"dropout": 0.0})
    (one,), (alone,) = through_lanes([experiment], tmp_path / "one")
    (two,), (shared,) = through_lanes([experiment], tmp_path / "two", workers=2)
    assert one.status == two.status == "finished", (one.error, two.error)
    assert [r.metrics["cost/tokens"] for r in shared] == [r.metrics["cost/tokens"] for r in alone]
    for a, b in zip(alone, shared, strict=True):
        assert math.isclose(a.metrics["train/loss"], b.metrics["train/loss"], rel_tol=1e-3)
        assert a.metrics["selection/accuracy"] == pytest.approx(b.metrics["selection/accuracy"], abs=0.04)
    assert len(two.hits) == len(one.hits) == 25


def test_a_diverging_trial_fails_with_one_line_and_the_lane_goes_on(cluster: Any, tmp_path: Path) -> None:
    from tests import tiny

    wild = tiny.experiment(optim={"lr": 1.0, "clip_norm": None, "warmup": 0.0, "weight_decay": 1e30})
    (bad, good), _ = through_lanes([wild, tiny.experiment()], tmp_path)
    assert bad.status == "failed"
    assert "not finite at step" in bad.error
    assert "\n" not in bad.error
    assert good.status == "finished"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_text_is_byte_identical_for_1_2_and_8_blocks(cluster: Any, language: str) -> None:
    from bothways import policy
    from bothways.edges.local import execute
    from bothways.edges.ray_data import RayExecute

    texts = {"en": "the film is n't great , but 1.5 hours pass", "zh": "这部电影不太好看，但是演员很棒。"}[language]
    rows = pa.table(
        {
            "id": pa.array(range(64), pa.int64()),
            "text": pa.array([f"{texts} {number}" for number in range(64)]),
            "pair": pa.nulls(64, pa.string()),
            "label": pa.array([0] * 64, pa.int64()),
            "epoch": pa.array([3] * 64, pa.int32()),
            "copy": pa.array([1] * 64, pa.int32()),
        }
    )
    read = functools.partial(policy.read, side=InputSide(**AUGMENTED), language=language, seed=5, statistics=None)
    here = pa.concat_tables(execute(rows, read))["text"].to_pylist()
    assert here != rows["text"].to_pylist()
    for blocks in (1, 2, 8):
        there = pa.concat_tables(RayExecute(block_rows=64 // blocks)(rows, read))["text"].to_pylist()
        assert there == here
