"""Few-shot pipelines: meta-trained, judged and saved, with the same digits every time; and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bothways.cli import run
from bothways.config import Experiment
from bothways.config.few_shot import FewShot
from bothways.config.yaml_io import dump
from bothways.data import Dataset, load
from bothways.edges.local import OneWorker, execute
from bothways.errors import UserError
from bothways.few_shot.running import FewShotRun
from bothways.models import load as load_model
from bothways.training.workspace import Workspace
from tests import tiny

WORDS = tiny.OTHER[:8]
ARMS = {
    "none": {"meta": "none"},
    "reptile": {"meta": {"name": "reptile", "batch_size": 6}},
    "fomaml": {"meta": "maml"},
    "maml": {"meta": {"name": "maml", "order": "second"}},
}
SECTION = {
    "classes": {"train": 5},
    "episodes": {"ways": 3, "shots": 2, "queries": 3, "adapt_steps": 2, "adapt_lr": 0.1, "batch": 2, "test": 6},
    "arms": ARMS,
    "seeds": 2,
}


LONGER = {"steps": 60, "lr": 5e-3, "evaluate_every": 20, "warmup": 0.0}


def written(folder: Path) -> Path:
    """Texts of eight classes, each of which has a word of its own, twice, among others."""
    draw = np.random.default_rng(0)
    texts = [
        {
            "text": " ".join([*draw.choice(tiny.OTHER[8:], 3), word, word, *draw.choice(tiny.OTHER[8:], 3)]),
            "label": word,
        }
        for number, word in enumerate(WORDS)
        for _ in range(24 - 2 * number)
    ]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in texts), "utf-8")
    return file


def experiment(folder: Path, **parts: Any) -> Experiment:
    return Experiment(
        data={"source": str(written(folder))},
        model={"source": tiny.model_dir(), "max_length": 16, **parts.pop("model", {})},
        optim={"steps": 4, "lr": 5e-3, "evaluate_every": 2, "warmup": 0.0},
        **parts,
    )


def made(what: Experiment, dataset: Dataset, **section: Any) -> FewShotRun:
    return FewShotRun(
        what,
        FewShot(**{**SECTION, **section}),
        dataset,
        collective=OneWorker(),
        execute=execute,
        workspace=Workspace(),
    )


@pytest.mark.slow
def test_every_arm_gives_the_same_digits_again_whatever_was_trained_before(tmp_path: Path) -> None:
    what = experiment(tmp_path)
    dataset = load(what.data)
    first, second = made(what, dataset, seeds=1), made(what, dataset, seeds=1)
    weights: dict[str, bytes] = {}
    for name, other in zip(ARMS, reversed(ARMS), strict=True):
        said: list[str] = []
        result = first.arm(name, tmp_path / "one", said.append)
        second.arm(other, tmp_path / "two", lambda _: None)
        assert result.accuracy.shape == (1, 6) and set((result.accuracy[0] * 9).round(9) % 1) == {0.0}
        assert bool(result.model) == (name != "none") == any("loss" in line for line in said)
        if result.model:
            weights[name] = (Path(result.model) / "model.safetensors").read_bytes()
    assert len(set(weights.values())) == 3
    for name, found in weights.items():
        assert (tmp_path / "two" / name / "model.safetensors").read_bytes() == found, name
    assert np.array_equal(first.judge(0), first.judge(0))


@pytest.mark.slow
def test_meta_training_makes_a_model_learn_faster(tmp_path: Path) -> None:
    what = experiment(tmp_path, model={"dropout": 0.0})
    dataset = load(what.data)
    for arm in ({"name": "maml"}, {"name": "reptile", "batch_size": 6}):
        setting = made(what, dataset, arms={"arm": {"meta": arm, "optim": LONGER}})
        losses = [loss for _, loss in setting.train(setting._few_shot.arms["arm"], 0)]
        assert losses[-1] < losses[0] - 0.05, (arm, losses)


@pytest.mark.slow
def test_a_meta_trained_model_is_one_to_start_from(tmp_path: Path) -> None:
    what = experiment(tmp_path, output={"trainable": {"name": "last_n", "n": 1}})
    dataset = load(what.data)
    setting = made(what, dataset, seeds=1)
    model = setting.arm("fomaml", tmp_path, lambda _: None).model
    before, after = load_model(what.model.source, ("x", "y")), load_model(model, ("x", "y"))
    assert set(after.base) >= set(before.base) and not any("classifier" in name for name in after.base)
    moved = {name for name, value in before.base.items() if not torch.equal(value, after.base[name])}
    assert moved and all("layer.2" in name or "pooler" in name for name in moved)  # what `trainable` moves
    same_number = load_model(model, tuple(f"c{number}" for number in range(3)))  # as many as an episode's ways
    assert not any("classifier" in name for name in same_number.base)
    ready = tiny.experiment(model={"source": model})
    assert list(tiny.trial(ready, tmp_path / "trial").reports())[-1].step == ready.optim.steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"task": {"name": "regression"}}, "few_shot is for the task classification, not regression"),
        ({"output": {"objectives": [{"name": "rdrop"}]}}, "adapts by cross_entropy"),
        ({"output": {"trainable": {"name": "lora"}}}, "trainable lora puts parts of its own"),
        ({"input": {"augment": {"n_aug": 1, "policy": [["identity"]]}}}, "shows rows as they are"),
    ],
)
def test_what_episodes_have_no_place_for_is_refused(tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    dataset = load(experiment(tmp_path).data)
    with pytest.raises(UserError, match=said):
        made(experiment(tmp_path, **parts), dataset)


@pytest.mark.slow
@pytest.mark.ray  # the record imports it; no cluster is started
def test_the_command_writes_a_table_models_and_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare = [{"name": "continued_pretraining", "steps": 2, "batch_size": 4}]
    what = experiment(tmp_path, model={"prepare": prepare})
    file = tmp_path / "p.yaml"
    spec = {"name": "p", "experiment": what.model_dump(mode="json"), "few_shot": SECTION}
    file.write_text(dump({**spec, "run": {"storage": str(tmp_path / "runs")}}), "utf-8")
    assert run(["check", str(file)]) == 0
    assert "4 few-shot arms, 2 seeds each" in capsys.readouterr().out
    assert run(["few-shot", str(file), "few_shot.seeds=1", "experiment.optim.steps=2"]) == 0
    said = capsys.readouterr().out
    page = (tmp_path / "runs" / "p-few-shot-001" / "result.md").read_text("utf-8")
    assert "1 seed, each judged by the same 6 episodes" in page and "| maml | maml second |" in page
    models = [Path(line.split()[1]) for line in said.splitlines() if line.startswith("model ")]
    assert [model.name for model in models] == ["reptile", "fomaml", "maml"]
    assert all((model / "config.json").is_file() and (model / "tokenizer.json").is_file() for model in models)
    import mlflow  # two seconds, and only this test asks for them

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (recorded,) = client.search_runs([client.get_experiment_by_name("p").experiment_id])
    assert recorded.info.status == "FINISHED" and 0 <= recorded.data.metrics["fomaml/accuracy"] <= 1
    assert run(["few-shot", "pipelines/sentiment.yaml"]) == 2
    assert "has no few_shot section" in capsys.readouterr().err
