"""The weights of Ren et al. 2018 against the look-ahead step of the paper, taken and differentiated in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bothways import models
from bothways.batches.batching import Encode, collate, evaluation_views
from bothways.contracts import Batch
from bothways.models.embedding_rows import EmbeddingRows
from bothways.registry import OBJECTIVES, TASKS, TRAINABLES
from bothways.tasks.classification import Classification
from bothways.training import ModelForward
from bothways.training.workspace import Workspace
from tests import tiny

TASK = Classification()


class Double(ModelForward):
    """The model's logits as they are, in float64."""

    def through(self, module: Any, batch: Batch, embeddings: Tensor | None) -> Tensor:
        inputs = dict(batch.inputs)
        if embeddings is not None:
            del inputs["input_ids"]
            inputs["inputs_embeds"] = embeddings
        found: Tensor = module(**inputs).logits
        return found


def batch_of(count: int, seed: int, family: str = "bert") -> Batch:
    encode = Encode(tokenizer_path=tiny.model_dir(family), max_length=24, paired=False)
    return collate(encode(evaluation_views(tiny.rows(count, seed=seed))), pad_id=0)


def loaded(family: str = "bert", dropout: float | None = 0.0) -> Any:
    bundle = models.load(tiny.model_dir(family), tiny.LABELS)
    models.reset(bundle, labels=tiny.LABELS, dropout=dropout, seed=3)
    with torch.no_grad():
        for value in bundle.module.parameters():  # far enough from the start that rows pull different ways
            value *= 4 if value.dim() > 1 else 1
    return bundle.module.double().train()


def as_the_paper_does(
    module: Any, rows: Batch, clean: Batch, moving: set[str], *, balanced: bool = False, lr: float = 0.3
) -> Tensor:
    """-dV/de at e = 0, through one step of gradient descent from there. `balanced`: V is the mean of both classes'."""
    start = {name: value.detach().requires_grad_(name in moving) for name, value in module.named_parameters()}

    def losses(weights: dict[str, Tensor], batch: Batch) -> Tensor:
        logits = torch.func.functional_call(module, weights, (), dict(batch.inputs)).logits
        return -logits.log_softmax(dim=1)[torch.arange(len(batch)), batch.labels]

    with sdpa_kernel(SDPBackend.MATH):
        e = torch.zeros(len(rows), dtype=torch.float64, requires_grad=True)
        wanted = [start[name] for name in sorted(moving)]
        slopes = torch.autograd.grad((e * losses(start, rows)).sum(), wanted, create_graph=True, materialize_grads=True)
        there = start | {name: start[name] - lr * slope for name, slope in zip(sorted(moving), slopes, strict=True)}
        lost = losses(there, clean)
        both = [lost[clean.labels == kind].mean() for kind in (0, 1)]
        (found,) = torch.autograd.grad(sum(both) / 2 if balanced else lost.mean(), e)
    return -found / lr


@pytest.mark.parametrize(("layers", "classes"), [("all", "balanced"), ("head", "drawn")])
def test_weights_are_those_of_the_papers_look_ahead_step(layers: str, classes: str) -> None:
    module, rows, clean = loaded(), batch_of(6, 5), batch_of(9, 8)
    assert len(clean) % 2  # so that one class comes more often
    every = {name for name, _ in module.named_parameters()}
    moving = every if layers == "all" else {name for name in every if name.startswith("classifier.")}
    forward = Double(module, module, "fp32")
    drawn = as_the_paper_does(module, rows, clean, moving)
    torch.testing.assert_close(forward.agreement(rows, clean, TASK, head=layers == "head"), drawn, rtol=1e-9, atol=0)

    expected = as_the_paper_does(module, rows, clean, moving, balanced=classes == "balanced")
    assert (expected > 0).any() and (expected < 0).any()
    knobs = {"strength": 0.7, "layers": layers, "classes": classes, "rows": "clean"}
    objective = OBJECTIVES.build({"name": "learn_to_reweight", **knobs})
    loss = objective(forward, replace(rows, beside={objective.beside: (clean,)}), TASK)
    weights = expected.clamp_min(0) / expected.clamp_min(0).sum()
    with torch.no_grad():
        hard = TASK.row_losses(forward(rows), rows)
    total = 0.3 * hard.mean() + 0.7 * (weights * hard).sum()
    torch.testing.assert_close(loss.total.detach(), total, rtol=1e-9, atol=0)
    assert float(loss.parts["without_weight"]) == pytest.approx(float((expected <= 0).double().mean()))
    (found,) = torch.autograd.grad(loss.total, module.classifier.bias)
    rates = 0.3 / 6 + 0.7 * weights  # weights count as given
    with torch.no_grad():
        off = forward(rows).softmax(dim=1) - torch.eye(2, dtype=torch.float64)[rows.labels]
    torch.testing.assert_close(found, (rates[:, None] * off).sum(dim=0), rtol=1e-9, atol=1e-12)


def test_what_trusted_rows_say_counts_and_not_how_many_of_a_class_a_step_has_drawn() -> None:
    module, rows, trusted = loaded(), batch_of(6, 5), batch_of(9, 8)
    forward = Double(module, module, "fp32")
    twice = trusted.join(*[trusted.slice(at, at + 1) for at in range(9) if trusted.labels[at]])

    def total(classes: str, clean: Batch) -> Tensor:
        objective = OBJECTIVES.build({"name": "learn_to_reweight", "rows": "clean", "classes": classes})
        return objective(forward, replace(rows, beside={objective.beside: (clean,)}), TASK).total.detach()

    torch.testing.assert_close(total("balanced", twice), total("balanced", trusted), rtol=1e-9, atol=0)
    assert abs(total("drawn", twice) / total("drawn", trusted) - 1) > 1e-3


@pytest.mark.slow
def test_an_embedding_that_is_trained_by_rows_counts_and_what_is_frozen_does_not() -> None:
    rows, clean = batch_of(6, 5), batch_of(9, 8)
    module = loaded()
    forward = Double(module, module, "fp32")
    expected = forward.agreement(rows, clean, TASK)
    by_rows = EmbeddingRows.of(module)
    assert by_rows is not None
    with by_rows.in_place():
        torch.testing.assert_close(forward.agreement(rows, clean, TASK), expected, rtol=1e-9, atol=0)
    with TRAINABLES.build({"name": "last_n", "n": 1})(module) as moves:
        found = forward.agreement(rows, clean, TASK)
        torch.testing.assert_close(found, as_the_paper_does(module, rows, clean, set(moves)), rtol=1e-9, atol=0)
        assert not torch.allclose(found, expected, rtol=1e-3)
    with TRAINABLES.build({"name": "lora", "r": 2})(module) as moves:
        with torch.no_grad():
            for name in moves:
                module.get_parameter(name).add_(0.1)  # the second thin matrix begins at zero
        found = forward.agreement(rows, clean, TASK)
        torch.testing.assert_close(found, as_the_paper_does(module, rows, clean, set(moves)), rtol=1e-9, atol=0)


@pytest.mark.slow
def test_dropout_has_no_part_in_the_weights_and_goes_on_in_training() -> None:
    rows, clean, module = batch_of(6, 5), batch_of(6, 8), loaded(dropout=0.5)
    forward = Double(module, module, "fp32")
    state = torch.get_rng_state()
    one, other = forward.agreement(rows, clean, TASK), forward.agreement(rows, clean, TASK)
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training and all(part.training for part in module.modules())


def test_a_row_that_pulls_against_the_clean_ones_has_no_weight_and_none_may_be_left() -> None:
    rows = batch_of(6, 5)
    module = loaded()
    forward = Double(module, module, "fp32")
    turned = replace(rows, labels=1 - rows.labels)
    objective = OBJECTIVES.build({"name": "learn_to_reweight", "rows": "clean"})
    same = objective(forward, replace(rows, beside={objective.beside: (rows,)}), TASK)
    against = objective(forward, replace(rows.slice(2, 3), beside={objective.beside: (turned.slice(2, 3),)}), TASK)
    assert float(same.parts["without_weight"]) < 1
    assert float(against.parts["without_weight"]) == 1
    assert float(against.total.detach()) == 0  # and no gradient, rather than none that is a number
    against.total.backward()
    assert all(value.grad is None or not value.grad.any() for value in module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("task", "family"), [("seq2seq", "t5"), ("regression", "bert")])
def test_it_is_defined_for_every_task(task: str, family: str, tmp_path: Path) -> None:
    what = tiny.experiment(
        family,
        task={"name": task},
        output={"objectives": [{"name": "learn_to_reweight", "per_row": 2}]},
        optim={"steps": 2, "evaluate_every": 2},
    )
    data = (
        tiny.dataset_of(lambda text, _: tiny.signal(text), pa.string())
        if TASKS.get(task).writes
        else tiny.dataset_of(lambda _, label: float(label), pa.float32())
    )
    (report,) = tiny.trial(what, tmp_path, data=data).reports()
    assert report.metrics["train/learn_to_reweight/weighed"] > 0


@pytest.mark.slow
def test_flipped_labels_get_less_weight_than_right_ones(tmp_path: Path) -> None:
    whole = tiny.dataset(train=80, clean=24)
    labels = whole.train["label"].to_numpy().copy()
    labels[:20] = 1 - labels[:20]
    noisy = whole.train.set_column(3, "label", pa.array(labels))
    workspace = Workspace()
    plain = tiny.experiment(optim={"steps": 100, "evaluate_every": 100, "batch_size": 16, "lr": 1e-2})
    (report,) = tiny.trial(plain, tmp_path, workspace, whole).reports()
    assert report.metrics["selection/accuracy"] > 0.8  # it has seen more than the labels' frequencies
    module = workspace.model(tiny.model_dir(), tiny.LABELS).module
    encode = Encode(tokenizer_path=tiny.model_dir(), max_length=24, paired=False)
    assert whole.clean is not None
    rows, clean = (collate(encode(evaluation_views(table)), pad_id=0) for table in (noisy, whole.clean))
    helps = ModelForward(module, module, "fp32").agreement(rows, clean, TASK).clamp_min(0)
    assert helps[:20].mean() < 0.5 * helps[20:].mean()


def test_clean_rows_that_nobody_named_are_refused_before_anything_starts() -> None:
    objective = {"name": "learn_to_reweight", "rows": "clean"}
    with pytest.raises(ValidationError, match=r"name such rows in data\.clean_source, or set `rows: labelled`"):
        tiny.experiment(output={"objectives": [objective]})
    idle = tiny.experiment(output={"objectives": [{**objective, "strength": 0.0}]})
    assert "clean_source" not in idle.spec()["data"]  # so that older experiments keep their identity
