"""Every family of models at every task: trained, saved, and read again by transformers alone; or refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from bothways import models
from bothways.errors import UserError
from bothways.training import ModelForward
from bothways.training.forward import _logits_of
from tests import tiny
from tests.every_family import PAIRS, REFUSED, made
from tests.tasks.test_families import batch_of


def test_a_family_without_a_model_for_a_task_is_refused_in_a_line() -> None:
    for (family, name), why in REFUSED.items():
        experiment, data = made(family, name)
        with pytest.raises(UserError, match=why) as refusal:
            models.load(tiny.model_dir(family), data.labels, task=experiment.task)
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value).partition("there is no")[2]) < 200


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_transformers_alone_read_what_was_trained(family: str, name: str, tmp_path: Path) -> None:
    experiment, data = made(family, name)
    task = experiment.task
    trial = tiny.trial(experiment, tmp_path / "trial", data=data)
    (report,) = trial.reports()
    assert report.step == 3
    scored = trial.score_test()
    assert len(scored.hits) == data.test.num_rows
    models.export(trial.save(), tmp_path / "exported")

    bundle, _ = models.load_saved(tmp_path / "trial" / "model")
    weights = dict(bundle.module.named_parameters())
    assert any(not torch.equal(weights[one], value) for one, value in bundle.base.items() if one in weights)
    auto = task.architecture(data.labels).auto[0]
    plain = getattr(transformers, auto).from_pretrained(tmp_path / "exported", attn_implementation="eager").eval()
    batch = batch_of(bundle, task, data.test.slice(0, 3))
    with torch.no_grad():
        ours = ModelForward(bundle.module.eval(), bundle.module, "fp32")(batch)
        for row, logits in enumerate(ours):
            alone = batch_of(bundle, task, data.test.slice(row, 1))
            theirs = _logits_of(plain(**alone.inputs))[0]
            assert torch.allclose(logits[tuple(map(slice, theirs.shape))], theirs, atol=1e-5)
