"""Search spaces: what is asked for, what a point makes of an experiment, and what comes first."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways import spaces
from bothways.config import Data, Experiment
from bothways.config.yaml_io import load_pipeline, read, space_file
from bothways.errors import UserError
from bothways.loop import is_loop
from bothways.spaces import load_space

ROOT = Path(__file__).parents[2]
PIPELINES = [file for file in sorted((ROOT / "pipelines").glob("*.yaml")) if not is_loop(read(file).data)]
SHIPPED = sorted((ROOT / "search_spaces").glob("*.yaml"))
BASE = Experiment(data=Data(source="rows.csv"))

TEXT = """\
input.augment.n_aug: [0, 2]
input.augment.policy.0.0.name: {choices: [identity, random_swap], when: {input.augment.n_aug: 2}}
input.augment.policy.0.0.p: {float: [0.1, 0.3], when: {input.augment.policy.0.0.name: random_swap}}
output.objectives.0.name: [cross_entropy, rdrop, label_smoothing]
output.objectives.0.alpha: {when: {output.objectives.0.name: rdrop}}
output.objectives.0.epsilon: {float: [0.0, 0.3], when: {output.objectives.0.name: label_smoothing}}
optim.lr: {log: [1e-5, 3e-4]}
optim.batch_size: {int: [8, 16]}
control: {output.objectives.0.name: cross_entropy}
start: [{output.objectives.0.name: rdrop, output.objectives.0.alpha: 1}]
"""


class Dice:
    """Shaped like Optuna's trial: draws from a seed and remembers what it was asked."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.asked: list[str] = []

    def suggest_float(self, name: str, low: float, high: float, *, step: Any = None, log: bool = False) -> float:
        self.asked.append(name)
        low, high = (np.log(low), np.log(high)) if log else (low, high)
        drawn = float(self.rng.uniform(low, high))
        return float(np.exp(drawn)) if log else drawn

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.asked.append(name)
        return int(self.rng.integers(low, high + 1))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked.append(name)
        return choices[int(self.rng.integers(len(choices)))]


@pytest.fixture
def space(tmp_path: Path) -> spaces.Space:
    file = tmp_path / "space.yaml"
    file.write_text(TEXT, encoding="utf-8")
    found = spaces.load_space(file)
    found.check(BASE)
    return found


def test_kinds_are_inferred_and_a_methods_own_range_is_taken(space: spaces.Space) -> None:
    kinds = {knob.path: (knob.kind, knob.values) for knob in space.knobs}
    assert kinds["input.augment.n_aug"] == ("choices", (0, 2))
    assert kinds["optim.lr"] == ("log", (1e-5, 3e-4))
    assert kinds["output.objectives.0.alpha"] == ("log", (0.1, 5.0))  # rdrop's annotation


def test_a_knob_is_asked_for_only_when_its_conditions_hold(space: spaces.Space) -> None:
    seen = set()
    for seed in range(60):
        trial = Dice(seed)
        point = spaces.suggest(trial, space)
        assert trial.asked == list(point)
        assert ("output.objectives.0.alpha" in point) == (point["output.objectives.0.name"] == "rdrop")
        assert ("input.augment.policy.0.0.name" in point) == (point["input.augment.n_aug"] == 2)
        seen.add((point["output.objectives.0.name"], point["input.augment.n_aug"]))
    assert len(seen) == 6


def test_the_space_travels_to_a_searcher_in_another_process(space: spaces.Space) -> None:
    ask = pickle.loads(pickle.dumps(partial(spaces.suggest, space=space)))
    assert ask(Dice(1)) == spaces.suggest(Dice(1), space)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_whatever_a_shipped_space_suggests_is_a_valid_experiment(file: Path, seed: int) -> None:
    space = spaces.load_space(file)
    point = spaces.suggest(Dice(seed), space)
    experiment = spaces.apply(BASE, point)
    assert experiment.digest == spaces.apply(BASE, dict(reversed(point.items()))).digest  # order is no part of a point
    assert len(spaces.arm_name(point)) <= 40


def test_another_name_gives_a_bare_component_beside_the_same_numbers(space: spaces.Space) -> None:
    objectives = [{"name": "label_smoothing", "epsilon": 0.3, "weight": 2.0}]
    base = Experiment.model_validate({"data": {"source": "x"}, "output": {"objectives": objectives}})
    (term,) = spaces.apply(base, {"output.objectives.0.name": "rdrop"}).output.objectives
    assert (term.objective.name, term.objective.alpha, term.weight) == ("rdrop", 1.0, 2.0)
    (same,) = spaces.apply(base, {"output.objectives.0.name": "label_smoothing"}).output.objectives
    assert same.objective.epsilon == 0.3


def test_an_experiment_that_is_not_searched_over_stays_what_it_was() -> None:
    assert spaces.apply(BASE, {}).digest == BASE.digest


def test_the_control_arm_runs_first_and_is_complete(space: spaces.Space) -> None:
    control, start = space.first_points(BASE)
    assert control == {
        "input.augment.n_aug": 0,
        "output.objectives.0.name": "cross_entropy",
        "optim.lr": 1e-4,
        "optim.batch_size": 16,
    }
    assert start == {"output.objectives.0.name": "rdrop", "output.objectives.0.alpha": 1.0}
    assert isinstance(start["output.objectives.0.alpha"], float)
    assert spaces.apply(BASE, control).digest == BASE.digest


def test_the_size_counts_conditions(space: spaces.Space) -> None:
    # inputs: n_aug 0, or 2 with either operation = 3; outputs: 3; batch sizes: 9
    assert space.size() == "∞ (4 continuous knobs, 81 combinations of the others)"


def test_a_discrete_space_has_a_countable_size(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("optim.steps: {int: [1, 100]}\nseed: {choices: [1, 2], when: {optim.steps: [1, 5]}}\n")
    assert spaces.load_space(file).size() == "102 points"


@pytest.mark.parametrize(
    ("point", "name"),
    [
        ({"output.objectives.0.name": "cross_entropy", "optim.lr": 1e-4}, "control"),
        ({"input.augment.policy.0.0.name": "identity", "output.objectives.0.name": "cross_entropy"}, "control"),
        (
            {"input.augment.policy.0.0.name": "synonym_replacement", "output.objectives.0.name": "rdrop"},
            "rdrop-synonym_replacement",
        ),
        ({"optim.lr": 0.0001, "optim.batch_size": 8}, "batch_size-8-lr-0.0001"),
        ({"a.name": "../<script>", "b.name": "✨" * 60}, "script"),
        ({}, "control"),
    ],
)
def test_an_arm_has_a_short_plain_name(point: Any, name: str) -> None:
    assert spaces.arm_name(point) == name


def test_every_shipped_space_holds_the_control_arm_and_checks() -> None:
    assert {file.stem for file in SHIPPED} >= {"joint", "input_only", "output_only"}
    for file in SHIPPED:
        space = spaces.load_space(file)
        space.check(BASE)
        experiment = spaces.apply(BASE, space.first_points(BASE)[0])
        assert experiment.input.augment.n_aug == 0
        assert [term.objective.name for term in experiment.output.objectives] == ["cross_entropy"]


def test_each_side_alone_leaves_the_other_alone() -> None:
    sides = {f.stem: {knob.path.split(".")[0] for knob in spaces.load_space(f).knobs} for f in SHIPPED}
    assert sides["input_only"] == {"input"}
    assert sides["output_only"] == {"output"}
    assert sides["joint"] == {"input", "output"}


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_every_shipped_pipeline_checks_with_its_space(file: Path) -> None:
    pipeline = load_pipeline(file)
    found = space_file(file, pipeline)
    if found:
        spaces.load_space(found).check(pipeline.experiment)
    assert pipeline.name == file.stem
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize("path", ["seed", "data.split_seed", "optim.steps", "optim.batch_size", "optim.evaluate_every"])
def test_what_must_be_equal_for_all_trials_cannot_be_searched(tmp_path: Path, path: str) -> None:
    (tmp_path / "s.yaml").write_text(f"{path}: [1, 2]\ncontrol: {{{path}: 1}}\n")
    with pytest.raises(UserError, match=f"s.yaml:1: {path} cannot be searched"):
        load_space(tmp_path / "s.yaml").check_comparable()


def test_both_sides_and_the_learning_rate_can_be_searched(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("optim.lr: [1e-4, 1e-3]\ninput.augment.n_aug: [0, 1]\n")
    load_space(tmp_path / "s.yaml").check_comparable()
