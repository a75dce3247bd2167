"""Every objective's contract. Their formulas: test_objective_formulas.py."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from bothways import models
from bothways.batches.batching import Encode, collate, collate_step, evaluation_views
from bothways.config import Term
from bothways.contracts import Batch, Loss
from bothways.edges.local import OneWorker
from bothways.errors import UserError
from bothways.models.embedding_rows import EmbeddingRows
from bothways.output_side.mixing import Mixture
from bothways.registry import OBJECTIVES, Component
from bothways.tasks.classification import Classification
from bothways.training import ModelForward, own_modules
from bothways.training.answers import Speaker
from bothways.training.workspace import Workspace
from tests import tiny
from tests.output_side.settings import ACTIVE, drawn_alike

TASK = Classification()
FAMILIES = ("bert", "roberta", "distilbert", "gpt2")
NAMES = OBJECTIVES.names()
IN_BATCH = {
    "mixup-0": "a row is mixed with another one of its batch, drawn by position",
    "mixup-1": "a row is mixed with another one of its batch, drawn by position",
    "supervised_contrastive-0": "a row is compared with the others of its batch",
    "learn_to_reweight-0": "the weights of a batch add up to one",
    "learn_to_reweight-1": "the weights of a batch add up to one",
    "coral-0": "a covariance of the whole batch",
    "mmd-0": "a mean over all pairs of the batch",
    "domain_embedding-1": "its loss is coral",
    "domain_embedding-2": "its loss is mmd",
    "gan-1": "it matches the mean features of the batch",
}
"""Whose loss of a row depends on which rows share its batch: slices do not add up to it."""
SETTINGS = [
    pytest.param(name, knobs, id=f"{name}-{i}") for name in NAMES for i, knobs in enumerate(ACTIVE.get(name, [{}]))
]
DRAWN = {f"policy_gradient-{i}" for i in range(3)} | {f"language_feedback-{i}" for i in (2, 3)}
"""Answers are drawn for all rows of a batch at once: others, for a batch in another order or cut."""
ROW_BY_ROW = [setting for setting in SETTINGS if setting.id not in {*IN_BATCH, *DRAWN}]
IN_ANY_ORDER = [setting for setting in SETTINGS if setting.values[0] != "mixup" and setting.id not in DRAWN]


@pytest.fixture(scope="module")
def batch() -> Batch:
    encode = Encode(tokenizer_path=tiny.model_dir(), max_length=24, paired=False)
    found = collate(encode(evaluation_views(tiny.rows(6, seed=5))), pad_id=0)
    return replace(found, is_copy=torch.tensor([False, True, False, True, True, False]))


@functools.cache
def loaded(family: str) -> models.Bundle:
    return models.load(tiny.model_dir(family), tiny.LABELS)


@functools.cache
def teacher_model(directory: str) -> Any:
    return models.load_saved(Path(directory))[0].module.eval()


def model(dropout: float | None, family: str = "bert") -> Any:
    """The one model of a family, as it is before training: asking for it again sets it back."""
    models.reset(loaded(family), labels=tiny.LABELS, dropout=dropout, seed=3)
    return loaded(family).module.train()


def with_beside(objective: Component, batch: Batch) -> Batch:
    """The batch with what the objective reads beside it, rows drawn from a few others and what its teachers say, as the
    trial would give them."""
    for teacher in objective.taught_by:  # type: ignore[attr-defined]
        if teacher not in batch.taught:
            with torch.no_grad():
                said = teacher_model(teacher.directory)(**batch.inputs).logits
            batch = replace(batch, taught={**batch.taught, teacher: said})
    kind = objective.beside  # type: ignore[attr-defined]
    if kind is None or kind in batch.beside:
        return batch
    encode = Encode(tokenizer_path=tiny.model_dir(), max_length=24, paired=False)
    pool = collate(encode(evaluation_views(tiny.rows(len(batch) * kind.per_row * kind.views, seed=9))), pad_id=0)
    width = batch.inputs["input_ids"].shape[1]
    assert pool.inputs["input_ids"].shape[1] <= width
    inputs = {k: pad(v, (0, width - v.shape[1])) for k, v in pool.inputs.items()}
    pool, size = replace(pool, inputs=inputs), len(batch) * kind.per_row
    views = tuple(pool.slice(at, at + size) for at in range(0, len(pool), size))
    return replace(batch, beside={**batch.beside, kind: views}, progress=0.5)


def run(objective: Component, module: Any, batch: Batch, seed: int = 0) -> tuple[Loss, dict[str, Tensor]]:
    """The loss and every parameter's gradient."""
    module.zero_grad(set_to_none=True)
    forward = forwarded(module, objective)
    torch.manual_seed(seed)
    loss = objective(forward, with_beside(objective, batch), TASK)  # type: ignore[operator]
    loss.total.backward()
    return loss, {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}


@pytest.fixture(name="drawn_alike")
def _drawn_alike() -> Iterator[None]:
    with drawn_alike():
        yield


def forwarded(module: Any, objective: Component, kind: type[ModelForward] = ModelForward) -> ModelForward:
    """The model as the training loop gives it to the objective."""
    bundle = next((one for one in map(loaded, FAMILIES) if one.module is module), loaded("bert"))
    speaker = Speaker(TASK, bundle, tiny.LABELS, Workspace())
    own = own_modules(module, [Term(objective=objective)], seed=1)
    return kind(module, module, "fp32", own, start=copy.deepcopy(module).eval(), speaker=speaker)


class Counting(ModelForward):
    """Counts the calls that DDP would see."""

    calls = 0

    def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().__call__(batch, embeddings)


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_the_loss_is_a_finite_scalar_with_finite_detached_parts(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    loss, _ = run(OBJECTIVES.build({"name": name, **knobs}), model(0.1), batch)
    assert loss.total.shape == ()
    assert torch.isfinite(loss.total)
    assert loss.parts
    assert all(part.shape == () and torch.isfinite(part) and not part.requires_grad for part in loss.parts.values())


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_gradients_reach_every_parameter(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    module = model(0.1)
    _, gradients = run(OBJECTIVES.build({"name": name, **knobs}), module, batch)
    assert set(gradients) == {name for name, _ in module.named_parameters()}
    # The softmax of attention does not see what all keys have in common: a key bias has no gradient by nature.
    still = {name for name, value in gradients.items() if not value.any()}
    assert all(name.endswith("key.bias") for name in still)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_an_objective_moves_the_model_elsewhere_than_cross_entropy(
    name: str, knobs: dict[str, Any], batch: Batch
) -> None:
    plain = run(OBJECTIVES.build("cross_entropy"), model(0.1), batch)[1]["classifier.weight"]
    assert not torch.allclose(
        run(OBJECTIVES.build({"name": name, **knobs}), model(0.1), batch)[1]["classifier.weight"], plain
    )


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_alike")
@pytest.mark.parametrize(("name", "knobs"), IN_ANY_ORDER)
def test_the_order_of_the_rows_does_not_matter(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    objective, order = OBJECTIVES.build({"name": name, **knobs}), torch.tensor([3, 0, 5, 1, 4, 2])
    batch = with_beside(objective, batch)
    shuffled = replace(
        batch,
        inputs={key: value[order] for key, value in batch.inputs.items()},
        labels=batch.labels[order],
        is_copy=batch.is_copy[order],
        taught={teacher: logits[order] for teacher, logits in batch.taught.items()},
    )
    module = model(0.0)
    there, back = run(objective, module, batch), run(objective, module, shuffled)
    assert float(there[0].total.detach()) == pytest.approx(float(back[0].total.detach()), rel=1e-6, abs=1e-6)
    assert all(torch.allclose(value, back[1][key], atol=1e-5) for key, value in there[1].items())


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_alike")
@pytest.mark.parametrize(("name", "knobs"), ROW_BY_ROW)
def test_slices_weighted_by_their_rows_add_up_to_the_batch(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    objective, module = OBJECTIVES.build({"name": name, **knobs}), model(0.0)
    batch = with_beside(objective, batch)
    whole = run(objective, module, batch)[1]
    first, second = run(objective, module, batch.slice(0, 2))[1], run(objective, module, batch.slice(2, 6))[1]
    assert all(torch.allclose(value, first[key] / 3 + second[key] * 2 / 3, atol=1e-5) for key, value in whole.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_neutral_setting_is_cross_entropy_to_the_last_bit(name: str, batch: Batch) -> None:
    member = OBJECTIVES.get(name)
    assert member.neutral
    neutral = member(**member.neutral)
    ours, gradients = run(neutral, model(0.1), batch)
    plain, expected = run(OBJECTIVES.build("cross_entropy"), model(0.1), batch)
    assert torch.equal(ours.total, plain.total)
    assert all(torch.equal(gradients[key], value) for key, value in expected.items())
    assert neutral.passes == (1, 1)


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_there_is_one_call_of_forward_for_a_backward_pass(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    module = model(0.1)
    objective = OBJECTIVES.build({"name": name, **knobs})
    forward = forwarded(module, objective, Counting)
    objective(forward, with_beside(objective, batch), TASK)
    assert isinstance(forward, Counting)
    assert forward.calls == 1


@pytest.mark.parametrize(("name", "knobs"), SETTINGS)
def test_the_passes_declared_are_the_rows_the_model_sees(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    module, seen = model(0.1), []
    hook = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["attention_mask"])), with_kwargs=True
    )
    objective = OBJECTIVES.build({"name": name, **knobs}).for_classes([3, 3])
    run(objective, module, batch)
    hook.remove()
    taught = len(objective.taught_by) * len(batch)  # by other models, before the step
    assert sum(seen) + taught == objective.passes[0] * len(batch)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_every_family_that_classifies_is_served(name: str, family: str) -> None:
    module = model(None, family)
    encode = Encode(tokenizer_path=tiny.model_dir(family), max_length=24, paired=True)
    knobs = {**ACTIVE.get(name, [{}])[-1], **({"layer": 1} if name == "mixup" else {})}  # GPT-2's are two here
    objective = OBJECTIVES.build({"name": name, **knobs})
    kinds = [objective.beside] if objective.beside else []
    views = 4 * (1 + sum(kind.per_row * kind.views for kind in kinds))
    rows = collate_step(encode(evaluation_views(tiny.rows(views, seed=5, paired=True))), 0, kinds)
    loss, gradients = run(objective, module, rows)
    assert torch.isfinite(loss.total)
    assert set(gradients) == {key for key, _ in module.named_parameters()}


def test_class_weights_of_another_number_of_classes_are_refused(batch: Batch) -> None:
    with pytest.raises(UserError, match="3 entries, the data 2 classes"):
        run(OBJECTIVES.build({"name": "cross_entropy", "class_weights": [1, 1, 1]}), model(0.0), batch)


def test_vat_s_divergence_is_that_of_the_perturbation_and_smart_s_that_of_dropout_too(batch: Batch) -> None:
    knobs = {"steps": 2, "lr": 1e-9, "init_mag": 1e-9}  # it goes nowhere
    vat, smart = (
        run(OBJECTIVES.build({"name": "adversarial", "method": method, **knobs}), model(0.3), batch)[0]
        for method in ("vat", "smart")
    )
    assert float(vat.parts["divergence"]) < 1e-9
    assert float(smart.parts["divergence"]) > 1e-6


def test_freelb_keeps_its_dropout_and_gathers_the_gradient_of_every_pass(batch: Batch) -> None:
    knobs = {"method": "freelb", "steps": 3, "lr": 1e-9}  # it goes nowhere
    loss, gradients = run(OBJECTIVES.build({"name": "adversarial", **knobs}), model(0.3), batch)
    plain, expected = run(OBJECTIVES.build("cross_entropy"), model(0.3), batch)
    assert float(loss.total.detach()) == pytest.approx(float(plain.total.detach()), rel=1e-5)
    assert all(torch.allclose(gradients[key], value, atol=1e-6) for key, value in expected.items())


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("layer", [1, 2])
def test_what_is_mixed_inside_the_model_is_one_row_the_other_or_between(family: str, layer: int) -> None:
    module = model(0.0, family)
    with torch.no_grad():
        for value in module.parameters():  # far from each other, as random rows are not to a small model
            value *= 8 if value.dim() > 1 else 1
    encode = Encode(tokenizer_path=tiny.model_dir(family), max_length=24, paired=False)
    rows = collate(encode(evaluation_views(tiny.rows(6, seed=5))), pad_id=0)
    rows = replace(rows, inputs={k: v[rows.inputs["attention_mask"].sum(1).argsort()] for k, v in rows.inputs.items()})
    mask, longest_first = rows.inputs["attention_mask"], torch.arange(5, -1, -1)  # the partners of the first three
    forward = ModelForward(module, module, "fp32")

    def mixed(share: float) -> Tensor:
        with torch.no_grad(), Mixture(torch.full((6,), share), longest_first, mask).within(forward.layers(), layer):
            return forward(rows)

    with torch.no_grad():
        plain = forward(rows)
    assert not torch.equal(mask[0], mask[5])
    assert plain.std(dim=0).min() > 0.01
    longer = slice(3, 6)  # rows at least as long as their partners: alone, they are as without a mixture
    torch.testing.assert_close(mixed(1.0)[longer], plain[longer])
    torch.testing.assert_close(mixed(0.0)[:3], plain[longest_first][:3])
    assert (mixed(0.6) - plain).abs().amax(dim=-1).min() > 1e-4
    torch.testing.assert_close(forward(rows).detach(), plain)  # no hook stays


def test_a_layer_that_the_model_does_not_have_is_refused(batch: Batch) -> None:
    with pytest.raises(UserError, match=r"mixup\.layer 3: the model has 3 layers, so 2 is the last"):
        run(OBJECTIVES.build({"name": "mixup", "layer": 3}), model(0.0), batch)


def test_freelb_gathers_the_gradient_of_an_embedding_that_is_trained_by_rows(batch: Batch) -> None:
    found = []
    for knobs in ({"name": "cross_entropy"}, {"name": "adversarial", "method": "freelb", "steps": 3, "lr": 1e-9}):
        module = model(0.3)
        rows = EmbeddingRows.of(module)
        assert rows is not None
        with rows.in_place():
            run(OBJECTIVES.build(knobs), module, batch)
        rows.gather(OneWorker())
        found.append(rows.values.grad)
    assert found[0].abs().max() > 1e-4
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-4)
