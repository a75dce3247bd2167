"""`bothways compare`: what it takes, and what it refuses before anything starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bothways import cli, comparison
from bothways.config import Pipeline, yaml_io
from bothways.errors import UserError

PIPELINE = "name: demo\nexperiment:\n  data: {source: rows.csv}\n  optim: {steps: 10}\n"
BEST = """\
seed: 3
data: {source: rows.csv}
input: {augment: {n_aug: 1, policy: [[{name: random_swap, p: 0.1}]]}}
output: {objectives: [{name: rdrop, alpha: 1.0}]}
optim: {steps: 60}
"""


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_found_experiment_takes_the_place_of_the_pipelines_and_overrides_come_after_it(tmp_path: Path) -> None:
    pipeline, best = write(tmp_path, "p.yaml", PIPELINE), write(tmp_path, "best.yaml", BEST)
    plain = yaml_io.load_pipeline(pipeline)
    found = yaml_io.load_pipeline(pipeline, ["experiment.optim.lr=5e-5"], best)
    assert (found.name, found.run) == (plain.name, plain.run)
    assert (found.experiment.seed, found.experiment.optim.steps, found.experiment.optim.lr) == (3, 60, 5e-5)
    assert list(comparison.arms(found.experiment)) == ["none", "copies", "input", "output", "both"]
    written = write(tmp_path, "again.yaml", yaml_io.dump(found.experiment.spec()))  # as a sweep writes it
    assert yaml_io.load_pipeline(pipeline, (), written) == found
    whole = write(tmp_path, "whole.yaml", yaml_io.dump(found.model_dump(mode="json")))
    assert yaml_io.load_pipeline(pipeline, (), whole) == found


@pytest.mark.parametrize(
    ("best", "options", "says"),
    [
        (None, [], r"^error: there is nothing to compare: .* plain on both sides.*--experiment runs/…/best\.yaml$"),
        (None, ["--experiment", "absent.yaml"], r"absent\.yaml: no such file"),
        ("language: en\ninput: {}\n", [], r"best\.yaml:1: no experiment, such as the best\.yaml of a sweep"),
        (BEST.replace("_swap", "_swop"), [], r"best\.yaml:3: .*did you mean 'random_swap'\?"),
        (BEST.replace("60", "many"), [], r"best\.yaml:5: .*steps: must be"),
        (BEST, ["experiment.output.objectives.0.name=cross_entropy", "experiment.input.augment.n_aug=0"], "nothing to"),
        (BEST, ["--seeds", "0"], r"--seeds"),
        (BEST, ["run.workers=3"], r"batch_size 16 cannot be divided by run\.workers 3"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    best: str | None, options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--experiment", str(write(tmp_path, "best.yaml", best))] if best else []
    code = cli.run(["compare", str(write(tmp_path, "p.yaml", PIPELINE)), *options, *given])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.search(says, err), err


def test_an_experiment_that_the_pipeline_cannot_hold_is_named(tmp_path: Path) -> None:
    pipeline = write(tmp_path, "p.yaml", PIPELINE + "search: {space: s.yaml, metric: accuracy}\n")
    assert isinstance(yaml_io.load_pipeline(pipeline), Pipeline)
    best = write(tmp_path, "best.yaml", "data: {source: rows.csv}\ntask: regression\n")
    with pytest.raises(UserError, match=r"best\.yaml, in place of the experiment of .*p\.yaml: .*search\.metric"):
        yaml_io.load_pipeline(pipeline, (), best)
