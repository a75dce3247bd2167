"""A policy as a file: what a sweep writes is what is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bothways.config import Experiment
from bothways.errors import UserError
from bothways.policy import file as policy_file

POLICY: dict[str, Any] = {
    "reconstruct": [{"name": "normalize"}],
    "augment": {
        "n_aug": 2,
        "keep_original": False,
        "policy": [
            [
                {"name": "random_swap", "p": 0.1, "probability": 0.5, "schedule": [[0.0, 0.2], [0.5, 1.0]]},
                {"name": "nlpaug", "augmenter": "char.KeyboardAug", "arguments": {"aug_char_p": 0.2}},
            ],
            [{"name": "background_noise", "kinds": ["url"], "schedule": "rising"}],
        ],
    },
    "protect": {"words": ["不错", "a: b", "# no"]},
}


@pytest.mark.parametrize("side", [POLICY, {}], ids=["a policy", "the control"])
def test_what_is_written_is_read_again(side: dict[str, Any], tmp_path: Path) -> None:
    experiment = Experiment.model_validate(
        {"seed": 7, "data": {"source": "x.csv", "language": "zh"}, "input": side, "optim": {"lr": 1e-5}}
    )
    file = tmp_path / "policy.yaml"
    file.write_text(policy_file.text(experiment.spec(), "Found by sweep x, trial y."), encoding="utf-8")
    found = policy_file.load(file)
    assert (found.input, found.data.language, found.seed) == (experiment.input, "zh", 7)
    assert file.read_text("utf-8").startswith("# Found by sweep x, trial y.\n# ")


def test_a_pipeline_serves_as_well(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text("name: a\nexperiment: {seed: 3, data: {source: x.csv}, input: {augment: {n_aug: 4}}}\n")
    found = policy_file.load(file)
    assert (found.input.augment.n_aug, found.data.source, found.seed) == (4, "x.csv", 3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"p\.yaml:1: neither a policy file, which has language, seed, input, nor a pipeline"),
        ("- a", r"p\.yaml:1: neither a policy file"),
        ("n_aug: 2", r"p\.yaml:1: neither a policy file"),
        ("input: {}\nlangage: zh", r"p\.yaml:2: unknown key 'langage': did you mean 'language'\?"),
        ("input: {}\nlanguage: de", r"p\.yaml:2: .*language: must be 'en' or 'zh', not 'de'"),
        ("language: en\ninput:\n  augment: {n_agu: 2}", r"p\.yaml:3: input\.augment: unknown key 'n_agu'.*'n_aug'"),
        ("input:\n  augment:\n    policy: [[{name: random_swop}]]", r"p\.yaml:3: .*did you mean 'random_swap'\?"),
        ("input: {augment: {policy: [[{name: random_swap, p: 2}]]}}", r"p\.yaml:1: .*p: must be at most 1, not 2"),
        ("input: {}\nseed: many", r"p\.yaml:2: seed: must be a whole number, not 'many'"),
        ("experiment: {}\nname: a", r"p\.yaml:1: .*'data' is missing"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint) as error:
        policy_file.load(file)
    assert "\n" not in str(error.value)
