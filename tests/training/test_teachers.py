"""Teachers: saved models known by their content, which read the student's batches or are refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bothways import models
from bothways.batches.batching import Encode, collate, evaluation_views
from bothways.config import Experiment
from bothways.errors import UserError
from bothways.registry import OBJECTIVES
from bothways.training.teachers import Teaching
from bothways.training.workspace import Workspace
from tests import tiny


def taught_by(*teachers: str | Path, family: str = "bert", **parts: Any) -> Experiment:
    objective = {"name": "distillation", "teachers": [str(one) for one in teachers], "alpha": 1.0}
    return tiny.experiment(family, output={"objectives": [objective]}, **parts)


def teaching(what: Experiment, labels: tuple[str, ...] = tiny.LABELS, paired: bool = False) -> Teaching:
    workspace = Workspace()
    return Teaching(what, workspace.model(what.model.source, labels), labels, paired, workspace.remember)


@pytest.mark.slow
def test_a_student_of_a_teacher_alone_comes_to_think_as_it_does(tmp_path: Path) -> None:
    optim = {"steps": 120, "lr": 5e-3, "evaluate_every": 60}
    trained = tiny.trial(tiny.experiment(optim=optim), tmp_path / "teacher")
    teacher = [report.metrics for report in trained.reports()][-1]
    what = taught_by(trained.save(), seed=5, optim={**optim, "evaluate_every": 30})
    student = [report.metrics for report in tiny.trial(what, tmp_path / "student").reports()]
    assert min(teacher["selection/accuracy"], student[-1]["selection/accuracy"]) > 0.7
    assert student[-1]["train/distillation/divergence"] < student[0]["train/distillation/divergence"] / 2
    assert student[-1]["cost/passes"] == pytest.approx(120 * 4 / 3)


def test_what_a_teacher_says_is_what_it_predicts_in_the_order_of_the_data_s_labels() -> None:
    other = tiny.saved_model(labels=tiny.LABELS[::-1])
    what = taught_by(tiny.saved_model(), other)
    encode = Encode(tokenizer_path=tiny.model_dir(), max_length=24, paired=False)
    batch = collate(encode(evaluation_views(tiny.rows(6, seed=5))), pad_id=0)
    taught = teaching(what)(batch).taught
    for directory, turned in ((tiny.saved_model(), False), (other, True)):
        bundle, _ = models.load_saved(Path(directory))
        with torch.no_grad():
            logits = bundle.module.eval()(**batch.inputs).logits
        (found,) = [said for teacher, said in taught.items() if teacher.directory == directory]
        torch.testing.assert_close(found, logits.flip(1) if turned else logits)
        assert not found.requires_grad
    assert logits.std(dim=0).min() > 1e-3


def test_an_exported_model_teaches_as_the_saved_one_does(tmp_path: Path) -> None:
    models.export(Path(tiny.saved_model()), tmp_path / "exported")
    encode = Encode(tokenizer_path=tiny.model_dir(), max_length=24, paired=False)
    batch = collate(encode(evaluation_views(tiny.rows(4, seed=5))), pad_id=0)
    saved, exported = teaching(taught_by(tiny.saved_model(), tmp_path / "exported"))(batch).taught.values()
    torch.testing.assert_close(saved, exported)


def test_a_teacher_belongs_to_the_identity_of_the_experiment_by_its_content(tmp_path: Path) -> None:
    shutil.copytree(tiny.saved_model(), tmp_path / "teacher")
    before = taught_by(tmp_path / "teacher")
    assert Experiment(**before.spec()).digest == before.digest == taught_by(tmp_path / "teacher").digest
    shutil.copytree(tiny.saved_model(seed=1), tmp_path / "teacher", dirs_exist_ok=True)
    after = taught_by(tmp_path / "teacher")
    assert after.digest != before.digest
    with pytest.raises(UserError, match="has changed since the experiment was made"):
        teaching(before)
    teaching(after)
    shutil.rmtree(tmp_path / "teacher")  # a spec is readable without its teacher, as prediction needs it
    assert Experiment(**after.spec()).digest == after.digest


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"family": "roberta", "paired": True}, "has another tokenizer"),
        ({"labels": ("no", "yes")}, "knows the labels negative, positive, the data have no, yes"),
        ({"paired": True}, "reads single texts"),
        ({"model": {"max_length": 64}}, "reads at most 48 tokens"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(what: dict[str, Any], message: str) -> None:
    seen = {key: what.pop(key) for key in ("labels", "paired") if key in what}
    with pytest.raises(UserError, match=message):
        teaching(taught_by(tiny.saved_model(), **what), **seen)


def test_without_alpha_no_teacher_is_looked_for_and_with_it_there_must_be_one() -> None:
    assert OBJECTIVES.build({"name": "distillation", "alpha": 0, "teachers": ["nowhere"]}).taught_by == ()
    with pytest.raises(ValidationError, match="needs `teachers`"):
        OBJECTIVES.build({"name": "distillation", "alpha": 0.5})
    with pytest.raises((ValidationError, UserError), match="teacher nowhere is not a saved model"):
        OBJECTIVES.build({"name": "distillation", "teachers": ["nowhere"]})
