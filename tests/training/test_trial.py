"""A trial end to end: learning, resuming to the last bit, warm equals fresh, saving, predicting."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from bothways import models
from bothways.config import Run
from bothways.edges import local
from bothways.errors import UserError
from bothways.predict import Predictor
from bothways.results import Report
from bothways.training import arithmetic
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace
from tests import tiny

LEARNS = {
    "model": {"dropout": 0.0},
    "optim": {"steps": 60, "evaluate_every": 20, "lr": 0.01, "batch_size": 16},
}
BOTH_SIDES = {
    "output": {
        "objectives": [
            {"name": "label_smoothing", "epsilon": 0.1, "augmented_only": True},
            {"name": "rdrop", "alpha": 1.0, "weight": 0.5},
            {"name": "adversarial", "method": "pgd", "steps": 2, "init_mag": 0.3, "max_norm": 0.5},
            {"name": "consistency", "per_row": 2, "confidence": 0.5, "annealing": "exp"},
            {"name": "consistency", "rows": "labelled", "weight": 0.5},
        ],
    },
    "input": {
        "reconstruct": [{"name": "normalize"}],
        "augment": {
            "n_aug": 2,
            "policy": [
                [{"name": "random_swap", "p": 0.5, "schedule": "rising"}],
                [{"name": "random_deletion", "p": 0.3}, {"name": "random_substitution", "p": 0.3, "probability": 0.5}],
            ],
        },
    },
    "optim": {"steps": 8, "evaluate_every": 2, "patience": 10},
}


pytestmark = pytest.mark.usefixtures("a_checkpoint_at_every_report")


def digest(workspace: Workspace) -> str:
    return models.digest(workspace.model(tiny.model_dir(), tiny.LABELS).module.state_dict())


def comparable(reports: list[Report]) -> list[dict[str, float]]:
    """What must be equal to the last bit: everything but the clock's readings."""
    return [{k: v for k, v in report.metrics.items() if not k.startswith("time/")} for report in reports]


def test_a_trial_learns_what_can_be_learnt(tmp_path: Path, workspace: Workspace) -> None:
    found = local.run(
        tiny.experiment(**LEARNS),
        Run(),
        trial_id="t",
        directory=tmp_path,
        dataset=tiny.dataset(train=80),
        score_test=True,
        workspace=workspace,
    )
    assert found.status == "finished"
    assert found.last["selection/accuracy"] > 0.9
    assert found.test["accuracy"] > 0.9
    assert found.reports[0].metrics["train/loss"] > found.reports[-1].metrics["train/loss"]
    assert [report.step for report in found.reports] == [20, 40, 60]


def test_pairs_are_read_as_pairs(tmp_path: Path, workspace: Workspace) -> None:
    data = tiny.dataset(train=80, paired=True)  # the label shows in the second text only
    found = local.run(
        tiny.experiment(**LEARNS), Run(), trial_id="t", directory=tmp_path, dataset=data, workspace=workspace
    )
    assert found.last["selection/accuracy"] > 0.9
    predictor = Predictor(found.model_dir)
    assert predictor(["the film"], ["it was good"])[0].label == "positive"
    with pytest.raises(UserError, match="pairs"):
        predictor(["the film"])


def test_a_resumed_trial_equals_an_uninterrupted_one_to_the_last_bit(tmp_path: Path, workspace: Workspace) -> None:
    what = tiny.experiment(**BOTH_SIDES)
    straight = tiny.trial(what, tmp_path / "straight", workspace)
    expected, end = comparable(list(straight.reports())), digest(workspace)

    broken = tiny.trial(what, tmp_path / "broken", workspace)
    for report in broken.reports():
        if report.step == 4:
            break
    again = tiny.trial(what, tmp_path / "broken", Workspace())
    assert [report.step for report in again.history] == [2, 4]
    rest = list(again.reports())
    assert [report.step for report in rest] == [6, 8]
    assert comparable(again.history) == expected
    assert digest(again._workspace) == end


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_steps_and_not_bits(tmp_path: Path, workspace: Workspace) -> None:
    what = tiny.experiment(**BOTH_SIDES)
    expected = comparable(list(tiny.trial(what, tmp_path / "straight", workspace).reports()))
    end = digest(workspace)
    for report in tiny.trial(what, tmp_path / "broken", workspace).reports():
        if report.step == 6:
            break
    newest = max((tmp_path / "broken" / "checkpoints").iterdir())
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:-40])
    again = tiny.trial(what, tmp_path / "broken", workspace)
    assert [report.step for report in again.history] == [2, 4]
    assert "step-00000006 cannot be used" in again.notes[0]
    list(again.reports())
    assert (comparable(again.history), digest(workspace)) == (expected, end)


def test_a_trial_that_had_ended_is_not_trained_again(tmp_path: Path, workspace: Workspace) -> None:
    what = tiny.experiment(optim={"steps": 10, "patience": 5})
    list(tiny.trial(what, tmp_path, workspace).reports())
    end = digest(workspace)
    again = tiny.trial(what, tmp_path, workspace)
    assert list(again.reports()) == []
    assert digest(workspace) == end


def test_a_slow_disk_gets_fewer_checkpoints_but_one_whenever_asked(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bothways.training.trial.CHECKPOINT_SHARE", 1e-9)
    trial = tiny.trial(tiny.experiment(), tmp_path, workspace)
    reports = trial.reports()
    for _ in range(3):
        next(reports)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    trial.checkpoint()
    assert [report.step for report in tiny.trial(tiny.experiment(), tmp_path).history] == [5, 10, 15]


@pytest.mark.parametrize("here", [False, True])
def test_whoever_asks_for_bf16_hears_that_this_cpu_has_none(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    monkeypatch.setattr(arithmetic, "multiplies_bf16", lambda device: here)
    trial = tiny.trial(tiny.experiment(optim={"precision": "bf16"}), tmp_path, workspace)
    assert any("bf16" in note for note in trial.notes) != here
    assert tiny.trial(tiny.experiment(), tmp_path / "fp32", workspace).notes == []


def test_a_directory_with_another_experiments_checkpoint_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    next(tiny.trial(tiny.experiment(), tmp_path, workspace).reports())
    with pytest.raises(UserError, match="other experiment"):
        tiny.trial(tiny.experiment(optim={"lr": 1e-3}), tmp_path, workspace)


FRESH = """
import sys, torch
from pathlib import Path
from tests import tiny
from bothways import models
from bothways.config import Experiment
from bothways.training.workspace import Workspace
import json
torch.set_num_threads(1)
what = Experiment(**json.loads(sys.argv[1]))
workspace = Workspace()
list(tiny.trial(what, Path(sys.argv[2]), workspace).reports())
print(models.digest(workspace.model(what.model.source, tiny.LABELS).module.state_dict()))
"""


@pytest.mark.slow
def test_the_third_trial_of_a_warm_process_equals_one_in_a_fresh_process(tmp_path: Path) -> None:
    what = tiny.experiment(**BOTH_SIDES)
    warm = Workspace()
    list(tiny.trial(tiny.experiment(seed=9, model={"dropout": 0.4}), tmp_path / "1", warm).reports())
    stopped = tiny.trial(tiny.experiment(output={"trainable": "head"}), tmp_path / "2", warm).reports()
    next(stopped)
    stopped.close()
    list(tiny.trial(what, tmp_path / "3", warm).reports())
    command = [sys.executable, "-c", FRESH, json.dumps(what.spec()), str(tmp_path / "fresh")]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert fresh.stdout.strip() == digest(warm)


@pytest.mark.slow
def test_the_blocks_in_which_text_is_transformed_do_not_matter(tmp_path: Path, workspace: Workspace) -> None:
    def one_by_one(views: pa.Table, encode: Any) -> Iterator[pa.Table]:
        yield from (encode(views.slice(at, 3)) for at in range(0, views.num_rows, 3))

    what = tiny.experiment(**BOTH_SIDES)
    expected = comparable(list(tiny.trial(what, tmp_path / "a", workspace).reports()))
    other = Trial(
        what,
        tiny.dataset(),
        collective=local.OneWorker(),
        execute=one_by_one,
        workspace=Workspace(),
        directory=tmp_path / "b",
    )
    assert comparable(list(other.reports())) == expected


def test_a_caller_can_stop_a_trial(tmp_path: Path, workspace: Workspace) -> None:
    found = local.run(
        tiny.experiment(),
        Run(),
        trial_id="t",
        directory=tmp_path,
        dataset=tiny.dataset(),
        on_report=lambda report: report.step < 10,
        workspace=workspace,
    )
    assert (found.status, found.model_dir) == ("stopped", "")
    assert [report.step for report in found.reports] == [5, 10]
    assert not (tmp_path / "checkpoints").exists()


def test_a_trial_that_diverges_is_a_failed_result_with_one_line(tmp_path: Path, workspace: Workspace) -> None:
    what = tiny.experiment(optim={"lr": 1.0, "steps": 200, "clip_norm": None, "warmup": 0, "precision": "fp32"})

    def poison(report: Report) -> None:
        with torch.no_grad():
            workspace.model(tiny.model_dir(), tiny.LABELS).module.classifier.bias.fill_(float("inf"))

    found = local.run(
        what, Run(), trial_id="t", directory=tmp_path, dataset=tiny.dataset(), on_report=poison, workspace=workspace
    )
    assert found.status == "failed"
    assert "not finite at step 6" in found.error
    assert "\n" not in found.error


# -- the saved model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, Path]:
    directory = tmp_path_factory.mktemp("finished")
    trial = tiny.trial(tiny.experiment(**LEARNS), directory, data=tiny.dataset(train=80))
    list(trial.reports())
    return trial, directory


def test_scores_are_of_the_model_as_it_is_saved(finished: tuple[Trial, Path]) -> None:
    trial, _ = finished
    scored = trial.score_test()
    model = trial.save()
    test = tiny.dataset(train=80).test
    found = Predictor(model)(test["text"].to_pylist())
    right = [p.label == tiny.LABELS[label] for p, label in zip(found, test["label"].to_pylist(), strict=True)]
    assert right == list(scored.hits)
    assert scored.metrics["accuracy"] == np.mean(right)
    chosen = [p.probabilities[tiny.LABELS[label]] for p, label in zip(found, test["label"].to_pylist(), strict=True)]
    assert scored.metrics["log_loss"] == pytest.approx(-np.log(chosen).mean(), rel=1e-5)
    assert not (model.parent / "checkpoints").exists()


def test_a_saved_model_is_within_fp16_of_a_weights_change(tmp_path: Path, workspace: Workspace) -> None:
    list(tiny.trial(tiny.experiment(**LEARNS), tmp_path, workspace).reports())
    bundle = workspace.model(tiny.model_dir(), tiny.LABELS)
    before = {name: value.clone() for name, value in bundle.module.state_dict().items()}
    models.restore(bundle, models.compact(bundle))
    for name, value in bundle.module.state_dict().items():
        change = (before[name] - bundle.base[name]).abs() if name in bundle.base else torch.zeros(())
        # half the spacing of fp16 around the change, and of fp32 around the weight itself
        bound = change * 2**-11 + 3e-8 + before[name].abs() * 2**-23
        assert bool(((value - before[name]).abs() <= bound).all()), name


def test_a_saved_model_loads_in_a_new_place_with_the_same_weights_and_is_small(finished: tuple[Trial, Path]) -> None:
    trial, _ = finished
    trial.score_test()  # with the weights as they are saved
    model = trial.save()
    bundle, about = models.load_saved(model)
    assert models.digest(bundle.module.state_dict()) == digest(trial._workspace)
    assert about.labels == tiny.LABELS
    assert about.experiment == trial.experiment
    full = sum(value.numel() * 4 for value in bundle.module.state_dict().values())
    assert sum(file.stat().st_size for file in model.iterdir()) < 0.6 * full + 10_000  # names weigh much when tiny


def test_frozen_parts_are_not_stored(tmp_path: Path, workspace: Workspace) -> None:
    trial = tiny.trial(tiny.experiment(output={"trainable": "head"}), tmp_path, workspace)
    list(trial.reports())
    stored = models.compact(workspace.model(tiny.model_dir(), tiny.LABELS))
    assert set(stored) == {
        "bert.pooler.dense.weight.delta",
        "bert.pooler.dense.bias.delta",
        "classifier.weight",
        "classifier.bias",
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_an_exported_model_is_plain_transformers_and_predicts_the_same(tmp_path: Path, family: str) -> None:
    trial = tiny.trial(tiny.experiment(family, optim={"steps": 5}), tmp_path)
    list(trial.reports())
    saved, exported = trial.save(), tmp_path / "exported"
    models.export(saved, exported)
    texts = tiny.dataset().test["text"].to_pylist()
    ours, theirs = Predictor(saved)(texts), Predictor(exported)(texts)
    assert ours == theirs
    plain = AutoModelForSequenceClassification.from_pretrained(exported)
    assert plain.config.id2label == dict(enumerate(tiny.LABELS))
    bundle, _ = models.load_saved(saved)
    assert models.digest(plain.state_dict()) == models.digest(bundle.module.state_dict())


@pytest.mark.slow
def test_a_model_whose_base_has_changed_is_refused(finished: tuple[Trial, Path], tmp_path: Path) -> None:
    trial, _ = finished
    about = json.loads((trial.save() / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**about, "base": {**about["base"], "sha256": "0" * 64}}))
    with pytest.raises(UserError, match="other weights"):
        models.load_saved(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a saved model"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"labels": []}', "cannot be read"),
    ],
)
def test_what_is_no_model_is_one_clear_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        Predictor(tmp_path)
    assert "\n" not in str(error.value)


def test_predictions_come_in_the_order_of_the_texts_and_add_up_to_one(finished: tuple[Trial, Path]) -> None:
    predictor = Predictor(finished[0].save())
    texts = ["it was a good film and a lovely story", "dull", "the story was great", "", "a bad and awful plot"]
    found = predictor(texts)
    assert [p.label for p in (found[0], found[1], found[2], found[4])] == [
        "positive",
        "negative",
        "positive",
        "negative",
    ]
    assert all(sum(p.probabilities.values()) == pytest.approx(1) for p in found)
    alone = [predictor([text])[0] for text in texts]
    assert [p.label for p in alone] == [p.label for p in found]
    assert predictor([]) == []
