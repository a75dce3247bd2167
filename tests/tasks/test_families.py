"""Every family of models at every kind of task: a row does not depend on its batch, every parameter learns, and the
loss falls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from bothways import models
from bothways.batches.batching import Encode, collate, evaluation_views
from bothways.contracts import Batch
from bothways.data import Dataset
from bothways.errors import UserError
from bothways.models.pretrained import places
from bothways.registry import TASKS
from bothways.training import ModelForward
from tests import tiny
from tests.tasks.test_models import CASES, question_and_text

FAMILIES = ("bert", "roberta", "distilbert", "electra", "deberta", "xlnet", *tiny.DECODERS)
DATA = tiny.dataset(train=400)
READING = ("classification", "regression", "multi_label", "token_classification", "question_answering")


def data_of(name: str) -> tuple[dict[str, Any], Dataset]:
    if name == "classification":
        return {"name": name}, tiny.dataset()
    _, knobs, make, kind, labels, *_ = CASES[name]
    data = tiny.dataset_of(make, kind, labels)
    return {"name": name, **knobs}, question_and_text(data) if name == "question_answering" else data


def batch_of(bundle: models.Bundle, task: Any, table: pa.Table) -> Batch:
    paired = task.places == "pair"
    encode = Encode(tokenizer_path=bundle.path, max_length=24, paired=paired, task=task, start=bundle.start_id)
    return collate(encode(evaluation_views(table)), bundle.pad_id)


@pytest.mark.slow
@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_reads_rows_by_themselves_and_all_of_it_learns(family: str, name: str) -> None:
    spec, data = data_of(name)
    task = TASKS.build(spec)
    bundle = models.load(tiny.model_dir(family), data.labels, task=task)
    models.reset(bundle, labels=data.labels, dropout=0.0, seed=3)
    forward = ModelForward(bundle.module, bundle.module, "fp32")

    def losses(table: pa.Table) -> torch.Tensor:
        batch = batch_of(bundle, task, table)
        found: torch.Tensor = task.row_losses(forward(batch), batch)
        return found

    table = data.train.slice(0, 6)
    whole = losses(table)
    assert torch.allclose(torch.stack([losses(table.slice(row, 1))[0] for row in range(6)]), whole, atol=1e-5)
    bundle.module.train()
    losses(table).mean().backward()
    idle = [name for name, value in bundle.module.named_parameters() if value.grad is None]
    assert [name for name in idle if "mask_emb" not in name] == []  # XLNet's: of pretraining only


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_classifies_embeddings_as_tokens_by_one_vector_a_row(family: str, tmp_path: Path) -> None:
    """Also where the model's settings name no token for padding, as those of most decoders do not."""
    shutil.copytree(tiny.model_dir(family), tmp_path / family)
    settings = json.loads((tmp_path / family / "config.json").read_text())
    if family in tiny.DECODERS:
        (tmp_path / family / "config.json").write_text(json.dumps({**settings, "pad_token_id": None}))
    task = TASKS.build("classification")
    bundle = models.load(str(tmp_path / family), tiny.LABELS, task=task)
    models.reset(bundle, labels=tiny.LABELS, dropout=0.0, seed=3)
    forward, batch = ModelForward(bundle.module, bundle.module, "fp32"), batch_of(bundle, task, DATA.train.slice(0, 6))
    assert (batch.inputs["attention_mask"] == 0).any()
    found = forward.outputs(batch)
    assert torch.equal(forward(batch, forward.embed(batch)), found.logits)
    assert torch.allclose(forward.head(found.features), found.logits, atol=1e-6)


def test_a_model_that_sees_what_it_has_to_write_is_refused() -> None:
    with pytest.raises(UserError, match="XLNet sees what it would have to write"):
        models.load(tiny.model_dir("xlnet"), (), task=TASKS.build("causal_lm"))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_to_classify_and_is_saved(family: str, tmp_path: Path) -> None:
    optim = {"steps": 150, "evaluate_every": 50, "lr": 5e-3, "batch_size": 16}
    trial = tiny.trial(tiny.experiment(family, optim=optim, model={"dropout": 0.0}), tmp_path / "trial", data=DATA)
    found = [report.metrics["selection/accuracy"] for report in trial.reports()]
    assert max(found) > 0.8
    bundle, _ = models.load_saved(trial.save())
    batch = batch_of(bundle, TASKS.build("classification"), DATA.test)
    with torch.no_grad():
        logits = ModelForward(bundle.module, bundle.module, "fp32")(batch)
    assert float((logits.argmax(dim=1) == batch.labels).float().mean()) == pytest.approx(
        np.mean(trial.score_test().hits), abs=0.05
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_model_says_how_long_a_text_it_can_read(family: str, tmp_path: Path) -> None:
    bundle = models.load(tiny.model_dir(family), tiny.LABELS)
    most = places(bundle.module)
    assert (most is None) == (family in ("t5", "xlnet", "llama", "qwen"))

    def read(tokens: int) -> None:
        ids = torch.full((1, tokens), 7)
        ids[0, -1] = 3  # BART's classifier reads where a text ends
        bundle.module.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))

    if most is None:
        return read(600)
    read(most)
    with pytest.raises((IndexError, RuntimeError)):
        read(most + 1)
    with pytest.raises(UserError, match=f"model.max_length {most + 1}: .* reads at most {most} tokens"):
        tiny.trial(tiny.experiment(family, model={"max_length": most + 1}), tmp_path)
