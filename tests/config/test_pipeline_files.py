"""Pipeline files: mistakes are named with their place and the way out; overrides change what a file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bothways import task_contract
from bothways.config import Operation, Pipeline, Term, yaml_io
from bothways.errors import UserError
from bothways.loop import is_loop, load_loop
from bothways.registry import OBJECTIVES, TRANSFORMS

PIPELINES = Path(__file__).parents[2] / "pipelines"
GOOD = """\
name: demo
experiment:
  data: {source: rows.csv, language: en}
  input:
    augment:
      n_aug: 1
      policy:
        - - {name: random_deletion, p: 0.1, probability: 0.5}
  output:
    objectives:
      - {name: label_smoothing, epsilon: 0.2, weight: 2.0}
  optim: {lr: 1e-5, steps: 10}
run: {workers: 2}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(text: str) -> Path:
        file = tmp_path / "p.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return written


def complaint(file: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as refusal:
        yaml_io.load_pipeline(file, overrides)
    return str(refusal.value).replace(f"{file}:", "p.yaml:")


def test_a_good_file_becomes_a_typed_pipeline(write: Any) -> None:
    pipeline = yaml_io.load_pipeline(write(GOOD))
    assert pipeline.experiment.optim.lr == 1e-5
    (operation,) = pipeline.experiment.input.augment.policy[0]
    assert (operation.transform.name, operation.transform.p, operation.probability) == ("random_deletion", 0.1, 0.5)
    assert pipeline.experiment.output.objectives[0].weight == 2.0


def test_a_pipeline_survives_being_written_and_read(write: Any) -> None:
    pipeline = yaml_io.load_pipeline(write(GOOD))
    again = yaml_io.load_pipeline(write(yaml_io.dump(pipeline.model_dump(mode="json"))))
    assert again == pipeline
    assert again.experiment.digest == pipeline.experiment.digest


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("lr: 1e-5", "lr: abc", "p.yaml:12: experiment.optim.lr: must be a number, not 'abc'"),
        ("lr: 1e-5", "lr: '1e-5'", "p.yaml:12: experiment.optim.lr: must be a number, not '1e-5'"),
        ("lr: 1e-5", "lr: .nan", "p.yaml:12: experiment.optim.lr: must be a finite number, not nan"),
        ("lr: 1e-5", "lr: 2", "p.yaml:12: experiment.optim.lr: must be at most 1, not 2"),
        ("steps: 10", "steps: 1.5", "p.yaml:12: experiment.optim.steps: must be a whole number, not 1.5"),
        ("steps: 10", "steps: true", "p.yaml:12: experiment.optim.steps: must be a number, not true"),
        ("steps: 10", "stepz: 10", "p.yaml:12: experiment.optim: unknown key 'stepz': did you mean 'steps'?"),
        ("language: en", "language: cn", "p.yaml:3: experiment.data.language: must be 'en' or 'zh', not 'cn'"),
        ("source: rows.csv", "sauce: x", "p.yaml:3: experiment.data: unknown key 'sauce': did you mean 'source'?"),
        ("{source: rows.csv, language: en}", "{text: t}", "p.yaml:3: experiment.data: 'source' is missing"),
        ("{source: rows.csv, language: en}", "[1]", "p.yaml:3: experiment.data: must be a mapping, not a list"),
        (
            "random_deletion",
            "random_deletoin",
            "p.yaml:8: experiment.input.augment.policy.0.0: unknown transform 'random_deletoin': "
            "did you mean 'random_deletion'?",
        ),
        ("p: 0.1", "p: 1.5", "p.yaml:8: experiment.input.augment.policy.0.0.p: must be at most 1, not 1.5"),
        (
            "probability: 0.5",
            "probabilty: 0.5",
            "p.yaml:8: experiment.input.augment.policy.0.0: unknown key 'probabilty': did you mean 'probability'?",
        ),
        (
            "epsilon: 0.2",
            "epsilom: 0.2",
            "p.yaml:11: experiment.output.objectives.0: unknown key 'epsilom': did you mean 'epsilon'?",
        ),
        ("weight: 2.0", "weight: -1", "p.yaml:11: experiment.output.objectives.0.weight: must be at least 0, not -1"),
        (
            "{workers: 2}",
            "{gpus_per_worker: 1x}",
            "p.yaml:13: run.gpus_per_worker: must be a number or 'auto', not '1x'",
        ),
        ("{workers: 2}", "{execution: wram}", "must be 'warm' or 'cold', not 'wram', did you mean 'warm'?"),
    ],
)
def test_a_mistake_is_one_line_with_place_path_value_and_way_out(write: Any, right: str, wrong: str, line: str) -> None:
    assert right in GOOD
    said = complaint(write(GOOD.replace(right, wrong)))
    assert line in said
    assert len(said.splitlines()) == 1


def test_a_misnamed_key_is_not_also_called_missing(write: Any) -> None:
    said = complaint(write("name: demo\nexperimnt: {data: {source: x}}\n"))
    assert said == "p.yaml:2: unknown key 'experimnt': did you mean 'experiment'?"


def test_a_list_is_called_short_only_where_none_of_its_items_is_refused(write: Any) -> None:
    empty, refused = (
        complaint(write(GOOD.replace("source: rows.csv", f"source: {source}"))) for source in ("[]", "[{sorce: x}]")
    )
    assert empty == "p.yaml:3: experiment.data.source: has 0 entries, and must have at least 1"
    assert refused == "p.yaml:3: experiment.data.source.0: unknown key 'sorce': did you mean 'source'?"


@pytest.mark.parametrize("name", ["../../etc", "<script>", "a/b", "", "Sweep", "✨", "x" * 65, "con\u202etrol"])
def test_names_that_could_become_something_else_are_refused(write: Any, name: str) -> None:
    said = complaint(write(GOOD.replace("name: demo", f"name: {json.dumps(name)}", 1)))
    assert "name: must be 1 to 64 characters of a-z 0-9 . _ -" in said
    assert "\u202e" not in said  # the value is quoted with its invisible characters spelt out


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "just text", "- name: demo"])
def test_a_file_that_is_no_mapping_is_one_line(write: Any, text: str) -> None:
    assert len(complaint(write(text)).splitlines()) == 1


def test_many_mistakes_are_cut_to_the_first_few(write: Any) -> None:
    said = complaint(write(GOOD.replace("lr: 1e-5", ", ".join(f"x{i}: 1" for i in range(20)))))
    assert said.splitlines()[-1] == "… and 15 more problems"


@pytest.mark.parametrize(
    ("override", "path", "meant"),
    [
        ("experiment.optim.lr=3e-4", ("optim", "lr"), 3e-4),
        ("experiment.optim.patience=3", ("optim", "patience"), 3),
        ("experiment.optim.clip_norm=null", ("optim", "clip_norm"), None),
        ("experiment.input.augment.policy.0.0.p=0.2", ("input", "augment", "policy", 0, 0, "p"), 0.2),
        ("experiment.input.augment.policy.0.1.name=identity", ("input", "augment", "policy", 0, 1, "name"), "identity"),
        ("experiment.input.reconstruct=[normalize]", ("input", "reconstruct", 0, "name"), "normalize"),
        ("experiment.output.objectives.0.name=rdrop", ("output", "objectives", 0, "alpha"), 1.0),
        ("experiment.output.objectives.0.name=rdrop", ("output", "objectives", 0, "weight"), 2.0),
        ("experiment.output.objectives.0.name=label_smoothing", ("output", "objectives", 0, "epsilon"), 0.2),
    ],
)
def test_an_override_changes_what_its_path_names(write: Any, override: str, path: Any, meant: Any) -> None:
    found: Any = yaml_io.load_pipeline(write(GOOD), [override]).experiment.spec()
    for part in path:
        found = found[part]
    assert found == meant


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("experiment.data.clean_source=sure.csv", lambda p: p.experiment.data.clean_source == "sure.csv"),
        ("experiment.data.feedback={source: s.csv}", lambda p: p.experiment.data.feedback.chosen == "revision"),
        ("experiment.data.feedback.source=s.csv", lambda p: p.experiment.data.feedback.text == "input"),
        ("experiment.data.tasks=[{source: o.csv}]", lambda p: p.experiment.data.tasks[0].source == "o.csv"),
        ("experiment.data.label_names.5=good", lambda p: p.experiment.data.label_names == {"a": "b", "5": "good"}),
        ("few_shot.arms.one.optim.steps=3", lambda p: p.few_shot.arms["one"].optim.steps == 3),
        ("few_shot.arms.two.meta=none", lambda p: list(p.few_shot.arms) == ["one", "two"]),
    ],
)
def test_an_override_may_name_what_the_file_does_not(write: Any, override: str, meant: Any) -> None:
    text = (
        GOOD.replace("language: en}", "language: en, label_names: {a: b}}") + "few_shot: {arms: {one: {meta: none}}}\n"
    )
    assert meant(yaml_io.load_pipeline(write(text), [override]))


def test_overrides_are_read_together(write: Any) -> None:
    overrides = [
        "experiment.output.objectives.0.name=rdrop",
        "experiment.output.objectives.0.alpha=4",
        "search.space=s",
    ]
    pipeline = yaml_io.load_pipeline(write(GOOD), overrides)
    assert pipeline.experiment.output.objectives[0].objective.alpha == 4
    assert pipeline.search is not None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("experiment.optm.lr=1", "unknown path 'experiment.optm.lr': did you mean 'optim'?"),
        ("experiment.optim.lrr=1", "unknown path 'experiment.optim.lrr': did you mean 'lr'?"),
        ("experiment.data.clean_sorce=x", "unknown path 'experiment.data.clean_sorce': did you mean 'clean_source'?"),
        ("experiment.data.0=x", "unknown path 'experiment.data.0': known: clean_source, dedup, feedback, fold"),
        ("experiment.optim.lr=fast", "experiment.optim.lr: must be a number, not 'fast'"),
        ("experiment.input.augment.policy.7.0.p=1", "policy is a list of 1, count from 0"),
        ("experiment.input.augment.policy.0.0.q=1", "experiment.input.augment.policy.0.0: unknown key 'q'"),
        ("experiment.optim.lr.x=1", "experiment.optim.lr is a value"),
        ("experiment.seed=!!python/none", "tags are not accepted"),
        ("experiment..lr=1", "is not a dotted path"),
        ("experiment.optim.lr", "write it as key=value"),
        ("name=../x", "name: must be 1 to 64 characters"),
        ("=1", "is not a dotted path"),
        ("experiment.optim.lr=\ud800", "U+D800"),
    ],
)
def test_a_wrong_override_names_itself(write: Any, override: str, line: str) -> None:
    said = complaint(write(GOOD), override)
    assert said.startswith("override '")
    assert line in said
    assert len(said.splitlines()) == 1


def test_a_metric_that_the_task_has_not_is_refused(write: Any) -> None:
    assert "did you mean 'accuracy'?" in complaint(write(GOOD + "search: {space: s.yaml, metric: acuracy}\n"))


def test_the_space_of_a_pipeline_lies_beside_it() -> None:
    data = {"name": "a", "experiment": {"data": {"source": "x"}}, "search": {"space": "../spaces/joint.yaml"}}
    assert yaml_io.space_file("pipelines/a.yaml", Pipeline.model_validate(data)) == Path("spaces/joint.yaml")


def test_no_knob_of_a_component_bears_the_name_of_a_number_written_beside_it() -> None:
    for registry, holder in ((TRANSFORMS, Operation), (OBJECTIVES, Term)):
        beside = set(list(holder.model_fields)[1:])
        hidden = [name for name in registry.names() if beside & registry.get(name).model_fields.keys()]
        assert not hidden, f"{hidden}: a file could never set that knob"


@pytest.mark.parametrize("file", sorted(PIPELINES.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_pipeline_of_ours_is_sound_and_says_its_command_its_time_and_what_to_expect(file: Path) -> None:
    if is_loop(yaml_io.read(file).data):
        assert load_loop(file).name == file.stem
    else:
        pipeline = yaml_io.load_pipeline(file)
        assert pipeline.name == file.stem
        task_contract.refuse_misfit(pipeline.experiment)
        task_contract.refuse_search(pipeline)
        assert pipeline.search is None or yaml_io.space_file(file, pipeline).is_file()
    opening = "".join(line for line in file.read_text("utf-8").splitlines(keepends=True) if line.startswith("#"))
    assert f"pipelines/{file.name}" in opening
    assert "On two cores:" in opening
    assert "Expected:" in opening
