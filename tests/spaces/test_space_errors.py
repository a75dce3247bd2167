"""What is wrong with a space is said before anything starts: one line with file, line, knob and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from bothways import spaces
from bothways.config import Data, Experiment, yaml_io
from bothways.errors import UserError

BASE = Experiment(data=Data(source="rows.csv"))
NAME = "output.objectives.0.name"


def complaint(tmp_path: Path, text: str, base: Experiment = BASE) -> str:
    file = tmp_path / "s.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        spaces.load_space(file).check(base)
    said = str(refusal.value).replace(f"{file}:", "s.yaml:")
    assert said.startswith("s.yaml:")
    return said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("optim.lr: {log: [1e-3, 1e-5]}", "s.yaml:1: optim.lr: low 0.001 is not below high 1e-05"),
        ("optim.lr: {log: [0, 1e-3]}", "s.yaml:1: optim.lr: a logarithmic range must begin above 0, not at 0"),
        ("optim.lr: {float: [0.1, .nan]}", "the value nan is not a finite number"),
        ("optim.lr: {float: [0.1, .inf]}", "the value inf is not a finite number"),
        ("optim.lr: []", "choices needs a list with values, not an empty list"),
        ("optim.lr: {float: [0.1]}", "float needs two numbers: [low, high]"),
        ("optim.lr: {float: [a, b]}", "float needs two numbers"),
        ("optim.steps: {int: [1.5, 2]}", "int needs two whole numbers"),
        ("optim.lr: {lgo: [1e-5, 1e-3]}", "unknown kind 'lgo': did you mean 'log'?"),
        ("optim.lr: {log: [1e-5, 1e-3], int: [1, 2]}", "needs one of choices, float, log, int, int_log"),
        ("optim.lr: {}", "needs one of choices, float, log, int, int_log"),
        ("optim.lr: 1e-4", "a knob is a list of choices or a range"),
        ("optim.lr: [1e-4, 1e-4]", "a choice is listed twice"),
        ("optim.lr: [[1e-4]]", "a value is a word, a number, true, false or null, not a list"),
        ("a: 1\noptim.lrr: [1e-4]", "s.yaml:1: a: a knob is a list"),
        ("optim.lrr: [1e-4]", "s.yaml:1: unknown path 'optim.lrr': did you mean 'lr'?"),
        ("optm.lr: [1e-4]", "unknown path 'optm.lr': did you mean 'optim'?"),
        ("optim..lr: [1e-4]", "is not a dotted path"),
        ("strat: [{}]", "strat: a value is a word"),
        ("output.objectives.3.weight: [1.0]", "output.objectives is a list of 1, count from 0"),
        ("optim.lr.x: [1]", "optim.lr is a value"),
        ("optim.lr: [fast]", "s.yaml:1: optim.lr: must be a number, not 'fast'"),
        ("optim.lr: {float: [0.5, 3]}", "s.yaml:1: optim.lr: must be at most 1, not 3"),
        ("optim.lr: ['0.1', 0.2]", "optim.lr: must be a number, not '0.1'"),
        ("optim.steps: {float: [1, 5]}", "optim.steps: must be a whole number"),
        (f"{NAME}: [cross_entropy, rdrp]", "s.yaml:1: output.objectives.0: unknown objective 'rdrp': did you mean"),
        (
            f"{NAME}: [cross_entropy, rdrop]\noutput.objectives.0.alpha: [1.0]",
            f"(when {NAME} is cross_entropy: exclude it with `when:`)",
        ),
        (
            f"{NAME}: [cross_entropy, rdrop]\noutput.objectives.0.alhpa: {{when: {{{NAME}: rdrop}}}}",
            "rdrop has no knob 'alhpa': did you mean 'alpha'?",
        ),
        ("seed: {choices: [1, 2], when: {optim.stepz: 5}}\noptim.steps: [5, 6]", "did you mean 'optim.steps'?"),
        ("seed: {choices: [1, 2], when: {optim.steps: 7}}\noptim.steps: [5, 6]", "never is 7 (5, 6)"),
        ("seed: {choices: [1, 2], when: {optim.steps: []}}\noptim.steps: [5, 6]", "never is any of no values"),
        ("seed: {choices: [1, 2], when: {optim.lr: 0.1}}\noptim.lr: {float: [0.1, 0.2]}", "countable values"),
        ("seed: {choices: [1], when: {seed: 1}}", "s.yaml:1: seed: its conditions go round in a circle"),
        (
            "seed: {choices: [1], when: {optim.steps: 1}}\noptim.steps: {choices: [1], when: {seed: 1}}",
            "its conditions go round in a circle",
        ),
        ("seed: {choices: [1, 2], when: 5}", "when is a mapping"),
        ("seed: [1, 2]\nstart: [{seed: 3}]", "s.yaml:2: start.0: seed = 3 is outside its domain (1, 2)"),
        ("seed: [1, 2]\nstart: {seed: 1}", "start is a list of points"),
        ("seed: [1, 2]\nstart: [5]", "a point is a mapping of knobs to values"),
        ("seed: [1, 2]\nstart: [{sed: 1}]", "'sed' is no knob of this space, did you mean 'seed'?"),
        (
            f"{NAME}: [cross_entropy, rdrop]\noutput.objectives.0.alpha: {{when: {{{NAME}: rdrop}}}}\n"
            "start: [{output.objectives.0.alpha: 1.0}]",
            f"start point 1: output.objectives.0.alpha depends on {NAME}: give it a value too",
        ),
        ("seed: [1, 2]\ncontrol: {seed: 1}\ndescription: [1]", "description must be text"),
        (
            "model.prepare.0.name: [continued_pretraining]\nmodel.prepare.0.steps: [100, 0]\n"
            "control: {model.prepare.0.name: continued_pretraining, model.prepare.0.steps: 100}",
            "the control arm begins with continued_pretraining: set its steps to 0",
        ),
        ("seed: [1, 2]\n", "the control arm has seed = 0, which is outside its domain (1, 2)"),
        (f"{NAME}: [rdrop, cross_entropy]\ncontrol: {{{NAME}: rdrop}}", "s.yaml:2: the control arm learns rdrop"),
        (
            "input.augment.n_aug: [0, 1]\ninput.augment.policy.0.0.name: [random_swap, identity]\n"
            "control: {input.augment.n_aug: 1, input.augment.policy.0.0.name: random_swap}",
            "the control arm changes the text with random_swap: set it to identity",
        ),
        (
            "input.augment.policy.0.0.name: [random_swap, identity]",
            "the control arm needs a value for input.augment.policy.0.0.name: add it under `control:`",
        ),
        ("", "a space is a mapping of dotted paths"),
        ("control: {}", "the space has no knob"),
        ("[1, 2]", "a space is a mapping of dotted paths"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, line: str) -> None:
    said = complaint(tmp_path, text)
    assert line in said
    assert len(said.splitlines()) <= 2  # two knobs of one circle are two lines


def test_what_is_wrong_with_one_knob_does_not_hide_the_others(tmp_path: Path) -> None:
    said = complaint(tmp_path, "optim.lrr: [1]\noptim.steps: [0, 5]\noptim.warmup: {float: [0, 2]}\n")
    assert [line.split(":")[1] for line in said.splitlines()] == ["1", "2", "3"]


def test_a_control_of_plain_copies_is_a_control(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "input.augment.n_aug: [1, 2]\ninput.augment.policy.0.0.name: [random_swap, identity]\n"
        "control: {input.augment.n_aug: 1, input.augment.policy.0.0.name: identity}"
    )
    spaces.load_space(file).check(BASE)


def test_a_base_that_augments_needs_a_control_that_does_not(tmp_path: Path) -> None:
    augment = {"n_aug": 1, "policy": [["random_swap"]]}
    base = Experiment.model_validate({"data": {"source": "x"}, "input": {"augment": augment}})
    assert "changes the text with random_swap" in complaint(tmp_path, "optim.lr: [1e-4, 2e-4]", base)


scalar = st.sampled_from(["rdrop", "cross_entropy", 0, 1, 2, 0.5, -1, 1e-4, float("nan"), True, None, "../x", "✨"])
values = st.lists(scalar, max_size=3)


def spaces_of(word: st.SearchStrategy[str], knob: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    point = st.dictionaries(word, scalar, max_size=2)
    ends = st.fixed_dictionaries({}, optional={"control": point, "start": st.lists(point | scalar, max_size=2)})
    return st.builds(lambda knobs, first: knobs | first, st.dictionaries(word, knob, min_size=1, max_size=4), ends)


any_word = st.sampled_from([NAME, "optim.lr", "output.objectives.0.alpha", "x", "optim", "", "."])
any_when = st.dictionaries(any_word, scalar | values, max_size=2)
any_kind = st.sampled_from(["choices", "float", "log", "int", "int_log", "lgo"])
any_knob = st.builds(lambda kind, v, w: {kind: v, "when": w}, any_kind, values | scalar, any_when | scalar)
wild = spaces_of(any_word, values | scalar | any_knob)

domains: dict[str, list[Any]] = {  # some of each go beyond what the config takes
    NAME: [{"choices": ["cross_entropy", "rdrop"]}, {"choices": ["cross_entropy", "label_smoothing", "rdrop"]}],
    "output.objectives.0.alpha": [{}, {"log": [0.1, 5]}, {"float": [-1, 1]}],
    "optim.lr": [{"log": [1e-5, 1e-3]}, {"float": [0, 1e-3]}, {"choices": [1e-4, 3e-4]}, {"int": [1, 2]}],
    "optim.warmup": [{"float": [0, 0.5]}, {"float": [0, 2]}],
    "optim.steps": [{"int": [5, 200]}, {"choices": [1, 5, 200]}, {"float": [5, 200]}],
    "seed": [{"int": [0, 3]}, {"choices": [0, 1]}, {"int_log": [1, 3]}],
}
conditions = st.sampled_from([{}, {}, {NAME: "rdrop"}, {"optim.steps": [5, 200]}, {"seed": 1}])
likely = st.fixed_dictionaries(
    {NAME: st.sampled_from(domains[NAME])},
    optional={
        path: st.builds(
            lambda domain, when: domain | {"when": when},
            st.sampled_from(options),
            st.just({NAME: "rdrop"}) if path.endswith("alpha") else conditions,
        )
        for path, options in domains.items()
        if path != NAME
    },
)


@given(st.one_of(wild, likely, likely))
@settings(max_examples=200, deadline=None)
def test_any_space_is_sound_or_refused(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    file = tmp_path_factory.getbasetemp() / "space.yaml"
    file.write_text(yaml_io.dump(data), encoding="utf-8")
    try:
        found = spaces.load_space(file)
        found.check(BASE)
    except UserError:
        return
    event("sound")
    assert found.size()
    for first in found.first_points(BASE):
        spaces.apply(BASE, first)
    spaces.apply(BASE, spaces.suggest(Highest(), found))


class Highest:
    """A trial that takes the last of everything: if a space is sound, its far corner is a valid experiment too."""

    def suggest_float(self, name: str, low: float, high: float, *, step: Any = None, log: bool = False) -> float:
        return high

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return high

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[-1]
