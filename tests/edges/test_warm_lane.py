"""A warm lane leaves no trace: what ran before in its processes changes not one bit of what runs next.

Every objective, and every kind of trainable, goes through one lane, one after another, and each is compared with the
same experiment in a process of its own that has never trained anything.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from bothways.config import Experiment, Run
from bothways.edges.hub import Event
from bothways.registry import OBJECTIVES, TRAINABLES, Registry
from tests.edges.test_ray_trial import AUGMENTED, numbers, through_lanes, weights

MADE = "made in the test"
BESIDE = {"source": MADE, "clean_source": MADE, "tasks": [{"source": MADE}], "feedback": {"source": MADE}}
ROWS = {"clean": 15, "tasks": 12, "feedback": 12}
pytestmark = pytest.mark.ray


def members(registry: Registry[Any]) -> list[dict[str, Any]]:
    """Each member of a family at its defaults, and once more for every other value of a knob that is a choice."""
    found: list[dict[str, Any]] = []
    for name in registry.names():
        found.append({"name": name})
        for knob, field in registry.get(name).model_fields.items():
            if get_origin(field.annotation) is Literal:
                values = get_args(field.annotation)
                found += [{"name": name, knob: value} for value in values if value != field.default]
    return found


def pairs() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every trainable with cross-entropy; every objective with a trainable, which take turns."""
    trainables, objectives = members(TRAINABLES), members(OBJECTIVES)
    yield from ((trainable, {"name": "cross_entropy"}) for trainable in trainables)
    fitting = [objective for objective in objectives if "classes" in OBJECTIVES.build(objective).logits]
    others = [objective for objective in fitting if objective != {"name": "cross_entropy"}]
    yield from zip(itertools.cycle(trainables), others, strict=False)


CASES = [pytest.param(*pair, id="-".join(str(v) for part in pair for v in part.values())) for pair in pairs()]


def experiment(trainable: dict[str, Any], objective: dict[str, Any]) -> Experiment:
    from tests import tiny

    return tiny.experiment(
        input=AUGMENTED,
        data=BESIDE,
        output={"trainable": trainable, "objectives": [objective]},
        optim={"steps": 6, "evaluate_every": 3},
    )


def alone(what: dict[str, Any], directory: Path) -> tuple[str, list[dict[str, float]], dict[str, float]]:
    """Run by a process that was forked for this: the weights' digest, the reports' numbers, the test scores."""
    from bothways.edges import local
    from tests import tiny

    how = {"trial_id": "x", "directory": directory, "dataset": tiny.dataset(**ROWS), "score_test": True}
    result = local.run(Experiment(**what), Run(), **how)
    return weights(result.model_dir), numbers(result.reports), dict(result.test)


Found = dict[str, tuple[str, list[dict[str, float]], dict[str, float]]]


def key(what: Experiment) -> str:
    return what.digest


@pytest.fixture(scope="module")
def warm(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """All of them, through one lane, in an order in which no two neighbours are alike."""
    every = [experiment(*case.values) for case in CASES]
    mixed = every[::2] + every[1::2][::-1]
    outcomes, reports = through_lanes(mixed, tmp_path_factory.mktemp("warm"), beside=ROWS)
    assert [o.error for o in outcomes] == [""] * len(mixed)
    return {
        key(what): (weights(o.model_dir), numbers(r), dict(o.test))
        for what, o, r in zip(mixed, outcomes, reports, strict=True)
    }


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Each in its own fork of a process that has imported everything and run nothing."""
    folder = tmp_path_factory.mktemp("cold")
    every = [experiment(*case.values) for case in CASES]
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["bothways.edges.local", "transformers.models.bert.modeling_bert"])
    with forks.Pool(2, maxtasksperchild=1) as pool:
        given = [(what.spec(), folder / key(what)) for what in every]
        found = pool.starmap(alone, given, chunksize=1)
    return {key(what): result for what, result in zip(every, found, strict=True)}


def test_every_kind_and_objective_is_among_the_cases() -> None:
    trainables, objectives = zip(*((case.values[0]["name"], case.values[1]["name"]) for case in CASES), strict=True)  # type: ignore[index,call-overload]
    assert set(trainables) == set(TRAINABLES.names())
    assert set(objectives) == set(OBJECTIVES.names())
    assert len(CASES) >= len(TRAINABLES.names()) + len(OBJECTIVES.names()), "adversarial has several methods"


@pytest.mark.parametrize(("trainable", "objective"), CASES)
def test_a_trial_in_a_warm_lane_equals_the_same_trial_in_a_process_of_its_own(
    trainable: dict[str, Any], objective: dict[str, Any], warm: Found, cold: Found
) -> None:
    what = key(experiment(trainable, objective))
    assert warm[what] == cold[what]


def test_the_cases_differ_so_that_equality_means_something(warm: Found) -> None:
    digests = {digest for digest, _, _ in warm.values()}
    assert len(digests) > 0.8 * len(CASES)  # a few are neutral in so few steps


def test_a_lane_that_has_run_as_many_trials_as_it_may_goes_on_in_new_processes(cluster: Any, tmp_path: Path) -> None:
    from tests import tiny

    happened: list[Event] = []
    short = [tiny.experiment(seed=seed, optim={"steps": 2, "evaluate_every": 2}) for seed in range(3)]
    outcomes, _ = through_lanes(short, tmp_path, happened, renew_after=2)
    assert [o.status for o in outcomes] == ["finished"] * 3
    order = [e.note or e.trial_id for e in happened if e.kind in ("lane", "begin")]
    assert order[1:3] == ["trial-0", "trial-1"]
    assert order[4] == "trial-2"
    assert len({order[0], order[3]}) == 2, "the third trial ran in the processes of the first two"
