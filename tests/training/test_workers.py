"""Two workers under DDP train as one does, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bothways import models
from bothways.config import Experiment
from bothways.edges.local import execute
from bothways.training.trial import Scored, Trial
from bothways.training.workspace import Workspace
from tests import tiny
from tests.workers import Gloo, spawned

ARMS: dict[str, dict[str, Any]] = {
    "joint": {
        "output": {
            "objectives": [
                {"name": "label_smoothing", "epsilon": 0.1, "augmented_only": True},
                {"name": "rdrop", "alpha": 1.0, "weight": 0.5},
                {"name": "adversarial", "method": "pgd", "steps": 2, "max_norm": 0.5},
                {"name": "consistency", "per_row": 2, "confidence": 0.5},
            ]
        },
        "input": {"augment": {"n_aug": 1, "policy": [[{"name": "random_swap", "p": 0.5}]]}},
        "optim": {"steps": 6, "evaluate_every": 3, "accumulate": 2, "patience": 5},
    },
    "prepared": {
        "model": {"prepare": [{"name": "continued_pretraining", "steps": 3, "batch_size": 8}]},
        "optim": {"steps": 6, "evaluate_every": 3},
    },
    "domains": {
        "output": {
            "objectives": [
                {"name": "coral"},
                {"name": "mmd", "strength": 0.1, "per_row": 2},
                {"name": "dann"},
                {"name": "domain_embedding", "loss": "dann"},
                {"name": "gan", "weight": 0.5, "per_row": 2},
            ]
        },
        "data": {"mix": [{"source": "made in the test"}]},
        "input": {"sample_mixing": {"weight": 0.3, "weighting": "domain_classifier"}},
        "optim": {"steps": 6, "evaluate_every": 3, "accumulate": 2, "batch_size": 16, "algorithm": "sgd", "lr": 0.05},
    },
    "both sides": {
        "output": {
            "objectives": [
                {"name": "learn_to_reweight", "rows": "clean", "strength": 0.8},
                {"name": "learn_to_reweight", "layers": "head", "per_row": 2, "weight": 0.5},
                {"name": "cycle_consistency", "rows": "unlabelled", "per_row": 2},
                {"name": "multitask", "temperature": 3.0},
            ]
        },
        "data": {"clean_source": "made in the test", "tasks": [{"source": "made in the test"}]},
        "input": {"augment": {"n_aug": 1, "policy": [[{"name": "random_swap", "p": 0.5}]]}},
        "optim": {"steps": 6, "evaluate_every": 3, "accumulate": 2, "algorithm": "sgd", "lr": 0.05},
    },
    "perturbed": {
        "output": {
            "objectives": [
                {"name": "adversarial", "method": "freelb", "steps": 3, "lr": 0.3, "max_norm": 0.5},
                {"name": "focal", "weight": 0.5},
            ],
            "weighting": {"name": "gradnorm"},
        },
        "optim": {"steps": 6, "evaluate_every": 3, "accumulate": 2},
    },
    "feedback": {
        "output": {
            "objectives": [
                {"name": "preference", "beta": 0.5},
                {"name": "language_feedback", "mode": "hindsight", "weight": 0.5, "per_row": 2},
            ]
        },
        "data": {"feedback": {"source": "made in the test"}},
        "optim": {"steps": 6, "evaluate_every": 3, "accumulate": 2},
    },
    "adapters": {"output": {"trainable": {"name": "lora", "r": 2}}, "optim": {"steps": 6, "evaluate_every": 3}},
    "thawing": {
        "output": {"trainable": {"name": "gradual_unfreezing", "every": 1, "factor": 0.8}},
        "optim": {"steps": 6, "evaluate_every": 3, "average": "ema", "patience": 3, "accumulate": 2},
    },
    "layers": {
        "output": {"trainable": {"name": "layerwise_lr_decay", "factor": 0.7}},
        "optim": {"steps": 6, "evaluate_every": 3, "algorithm": "sgd", "schedule": "inverse_sqrt"},
    },
    "xlnet": {
        "family": "xlnet",
        "input": {"augment": {"n_aug": 1, "policy": [[{"name": "random_swap", "p": 0.5}]]}},
        "optim": {"steps": 6, "evaluate_every": 3, "accumulate": 2},
    },
    "frozen": {"output": {"trainable": {"name": "last_n", "n": 1}}, "optim": {"steps": 6, "evaluate_every": 3}},
}


def trained(collective: Gloo, directory: Path, spec: str) -> tuple[list[Any], Scored]:
    """What a worker found: digest, weights and metrics of a trial, and again; and how the test rows were scored."""
    workspace, found = Workspace(), []
    for name in ("first", "again"):  # the second trial meets a warm process
        what = Experiment(**json.loads(spec))
        trial = Trial(
            what,
            tiny.dataset(mixed=20, clean=15, tasks=12, feedback=12),
            collective=collective,
            execute=execute,
            workspace=workspace,
            directory=directory / name,
        )
        last = [report.metrics for report in trial.reports()][-1]
        weights = workspace.model(what.model.source, tiny.LABELS).module.state_dict()
        found.append((models.digest(weights), {k: v.numpy().copy() for k, v in weights.items()}, dict(last)))
        scored = trial.score_test()
        trial.save()
    return found, scored


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_two_workers_train_the_same_model_as_one(arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTHWAYS_CACHE", str(tmp_path / "cache"))  # inherited by the workers
    parts = {**ARMS[arm], "model": {"dropout": 0.0, **ARMS[arm].get("model", {})}}
    spec = json.dumps(tiny.experiment(parts.pop("family", "bert"), **parts).spec())
    ((alone, alone_scored),) = spawned(1, trained, spec, directory=tmp_path / "one")
    (left, scored), (right, scored_right) = spawned(2, trained, spec, directory=tmp_path / "two")
    assert left[0][0] == right[0][0] == left[1][0] == right[1][0]  # both ranks; fresh and warm
    for name, value in alone[0][1].items():
        assert abs(value - left[0][1][name]).max() < 1e-5, name
    for name, value in alone[0][2].items():
        if not name.startswith("time/"):
            assert left[0][2][name] == right[0][2][name] == pytest.approx(value, abs=1e-5), name
    assert scored == scored_right
    assert scored.hits == alone_scored.hits
    assert (tmp_path / "two" / "again" / "model" / "weights.safetensors").exists()


@pytest.mark.slow
def test_workers_draw_answers_of_their_own_and_stay_alike(tmp_path: Path) -> None:
    terms = [
        {"name": "policy_gradient", "reward": "f1", "method": "self_critical"},
        {"name": "language_feedback", "mode": "reward"},
    ]
    feedback = {"feedback": {"source": "made in the test"}}
    what = tiny.experiment(output={"objectives": terms}, data=feedback, optim={"steps": 4, "evaluate_every": 4})
    (left, _), (right, _) = spawned(2, trained, json.dumps(what.spec()), directory=tmp_path / "two")
    assert left[0][0] == right[0][0] == left[1][0] == right[1][0]
    assert 0 < left[0][2]["train/policy_gradient/reward"] < 1


@pytest.mark.slow
def test_views_outside_of_the_one_call_are_synchronised_too(tmp_path: Path) -> None:
    terms = [{"name": "adversarial", "method": "vat", "lr": 1.0}, {"name": "mixup", "layer": 1}]
    what = tiny.experiment(output={"objectives": terms}, optim={"steps": 4, "evaluate_every": 4})
    (left, _), (right, _) = spawned(2, trained, json.dumps(what.spec()), directory=tmp_path / "two")
    assert left[0][0] == right[0][0] == left[1][0] == right[1][0]
    assert left[0][2]["train/adversarial/divergence"] > 0
