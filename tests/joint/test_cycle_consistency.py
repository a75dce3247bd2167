"""The way back: the decoder and its loss against numpy in float64, and a model that learns to reconstruct."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bothways.config import Experiment
from bothways.contracts import NO_LABEL, Batch, Outputs
from bothways.errors import UserError
from bothways.joint.objectives.cycle_consistency import denoising, there_and_back
from bothways.registry import OBJECTIVES, Component
from bothways.tasks.classification import Classification
from bothways.tasks.seq2seq import Seq2Seq
from tests import tiny

F64 = npt.NDArray[np.float64]
DRAW = np.random.default_rng(3)
N, M, H, V = 3, 6, 128, 11  # two heads
FEATURES, WEIGHT = DRAW.normal(size=(N + M, H)), DRAW.normal(size=(2, H))
EMBEDDINGS = DRAW.normal(size=(V, H))
LENGTHS = [5, 3, 2, 5, 4, 5]
LABELS = np.arange(N) % 2


class Plain:
    """A stand-in for the model: features are a table the test owns."""

    def __init__(self, objective: Component) -> None:
        self.features = torch.tensor(FEATURES, requires_grad=True)
        torch.manual_seed(0)
        self.made: nn.Module = objective.modules(H, 2).double()  # type: ignore[attr-defined]
        with torch.no_grad():
            for value in self.made.parameters():  # biases begin at zero
                value += 0.1 * torch.randn_like(value)

    def outputs(self, batch: Batch, embeddings: Tensor | None = None) -> Outputs:
        assert len(batch) == N + M
        weight = torch.tensor(WEIGHT)
        return Outputs(self.features @ weight.T, self.features, weight)

    def own(self, objective: Any) -> nn.Module:
        return self.made

    def vocabulary(self) -> Tensor:
        return torch.tensor(EMBEDDINGS)


def rows(lengths: list[int]) -> Batch:
    real = np.arange(5) < np.array(lengths)[:, None]
    ids = np.random.default_rng(8).integers(0, V, real.shape)
    return Batch(
        inputs={"input_ids": torch.from_numpy(ids * real), "attention_mask": torch.from_numpy(real.astype(np.int64))},
        labels=torch.arange(len(lengths)) % 2,
        is_copy=torch.zeros(len(lengths), dtype=torch.bool),
    )


def normed(x: F64, w: dict[str, F64], name: str) -> F64:
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return np.asarray(unit * w[f"{name}.weight"] + w[f"{name}.bias"])


def softmax(x: F64) -> F64:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def reference(features: F64, w: dict[str, F64], ids: npt.NDArray[np.int64]) -> float:
    """The mean over rows of the mean over tokens of -log p, row by row and head by head."""
    gelu = np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)
    total = 0.0
    for row, length in enumerate(LENGTHS):
        read, following = ids[row, : length - 1], ids[row, 1:length]
        place = np.array(
            [[(math.sin, math.cos)[i % 2](t / 10_000 ** ((i - i % 2) / H)) for i in range(H)] for t in range(len(read))]
        )
        x = normed(EMBEDDINGS[read], w, "reads") + place
        q, k, v = np.split(x @ w["layer.self_attn.in_proj_weight"].T + w["layer.self_attn.in_proj_bias"], 3, axis=1)
        heads = []
        for part in (slice(0, 64), slice(64, 128)):
            scores = q[:, part] @ k[:, part].T / 8
            heads.append(softmax(np.where(np.tri(len(read)) > 0, scores, -np.inf)) @ v[:, part])
        attended = np.hstack(heads) @ w["layer.self_attn.out_proj.weight"].T + w["layer.self_attn.out_proj.bias"]
        x = normed(x + attended, w, "layer.norm1")
        # One place to attend to: every token gets the same of it.
        value = w["layer.multihead_attn.in_proj_weight"][2 * H :] @ features[row]
        value = value + w["layer.multihead_attn.in_proj_bias"][2 * H :]
        known = w["layer.multihead_attn.out_proj.weight"] @ value + w["layer.multihead_attn.out_proj.bias"]
        x = normed(x + known, w, "layer.norm2")
        inner = gelu(x @ w["layer.linear1.weight"].T + w["layer.linear1.bias"])
        x = normed(x + inner @ w["layer.linear2.weight"].T + w["layer.linear2.bias"], w, "layer.norm3")
        p = softmax(x @ EMBEDDINGS.T)
        total += -np.log(p[np.arange(len(read)), following]).mean() / M
    return total


def test_the_loss_and_its_gradient_are_those_of_the_formula() -> None:
    objective = OBJECTIVES.build({"name": "cycle_consistency", "strength": 0.7, "per_row": 2})
    forward, originals = Plain(objective), rows(LENGTHS)
    changed = replace(originals, inputs={name: values.flip(0) for name, values in originals.inputs.items()})
    batch = replace(rows([5, 4, 2]), beside={objective.beside: (originals, changed)})
    loss = objective(forward, batch, Classification())
    weights = {name: value.detach().numpy() for name, value in forward.made.named_parameters()}
    ids = originals.inputs["input_ids"].numpy()

    def expected(features: F64) -> float:
        hard = -np.log(softmax(features[:N] @ WEIGHT.T)[np.arange(N), LABELS]).mean()
        return float(hard + 0.7 * reference(features[N:], weights, ids))

    assert float(loss.total.detach()) == pytest.approx(expected(FEATURES), rel=1e-10)
    loss.total.backward()
    assert forward.features.grad is not None
    places = [(row, column) for row in (0, 2, N, N + 2, N + M - 1) for column in (0, 50, 127)]
    for place in places:
        step = np.zeros_like(FEATURES)
        step[place] = 1e-5
        slope = (expected(FEATURES + step) - expected(FEATURES - step)) / 2e-5
        assert float(forward.features.grad[place]) == pytest.approx(slope, abs=1e-8)
    frozen = [name for name, value in forward.made.named_parameters() if value.grad is None or not value.grad.any()]
    assert frozen == []


def test_what_a_row_learns_does_not_depend_on_padding_or_on_the_other_rows() -> None:
    objective = OBJECTIVES.build({"name": "cycle_consistency"})
    forward = Plain(objective)
    whole = denoising(forward.made, forward.vocabulary(), rows(LENGTHS), forward.features[N:])
    short = rows(LENGTHS).slice(1, 3)
    short = replace(short, inputs={name: values[:, :3] for name, values in short.inputs.items()})
    torch.testing.assert_close(
        denoising(forward.made, forward.vocabulary(), short, forward.features[N + 1 : N + 3]), whole[1:3]
    )


def test_a_model_whose_embeddings_are_narrower_than_its_features_is_refused() -> None:
    objective = OBJECTIVES.build({"name": "cycle_consistency"})
    forward = Plain(objective)
    forward.vocabulary = lambda: torch.tensor(EMBEDDINGS[:, :64])  # type: ignore[method-assign]
    batch = replace(rows([5, 4, 2]), beside={objective.beside: (rows(LENGTHS), rows(LENGTHS))})
    with pytest.raises(UserError, match=r"have 64 numbers, its features 128"):
        objective(forward, batch, Classification())


def test_the_dual_task_has_text_and_target_exchanged() -> None:
    batch = Batch(
        inputs={
            "input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
            "decoder_input_ids": torch.tensor([[2, 11, 12, 13], [2, 14, 0, 0]]),
        },
        labels=torch.tensor([[11, 12, 13, 3], [14, 3, NO_LABEL, NO_LABEL]]),
        is_copy=torch.zeros(2, dtype=torch.bool),
    )
    there, back = there_and_back(batch)
    x = NO_LABEL
    assert there.inputs["input_ids"].tolist() == [[5, 6, 7, 2], [8, 9, 0, 2]]
    assert there.inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert there.labels.tolist() == batch.labels.tolist()
    assert back.inputs["input_ids"].tolist() == [[11, 12, 13, 3], [14, 3, 2, 2]]
    assert back.inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert back.inputs["decoder_input_ids"].tolist() == [[2, 5, 6, 2], [2, 8, 9, 2]]
    assert back.labels.tolist() == [[5, 6, 7, x], [8, 9, x, x]]
    again = there_and_back(back)[1]  # and back once more
    assert again.labels.tolist() == there.labels.tolist()
    real = there.inputs["attention_mask"].bool()
    assert again.inputs["input_ids"][real].tolist() == there.inputs["input_ids"][real].tolist()


def test_the_dual_loss_is_the_sum_of_both_ways() -> None:
    class Table:
        def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
            return torch.sin(batch.inputs["decoder_input_ids"][..., None] * torch.arange(1.0, 16.0).double())

    batch = Batch(
        inputs={
            "input_ids": torch.tensor([[5, 6, 7, 4]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1]]),
            "decoder_input_ids": torch.tensor([[2, 11]]),
        },
        labels=torch.tensor([[11, 3]]),
        is_copy=torch.zeros(1, dtype=torch.bool),
    )
    objective = OBJECTIVES.build({"name": "cycle_consistency", "method": "dual", "strength": 0.4})
    found = float(objective(Table(), batch, Seq2Seq()).total)

    def way(read: list[int], written: list[int]) -> float:
        p = softmax(np.sin(np.array(read)[:, None] * np.arange(1.0, 16.0)))
        return float(-np.log(p[np.arange(len(read)), written]).mean())

    assert found == pytest.approx(way([2, 11], [11, 3]) + 0.4 * way([2, 5, 6, 7], [5, 6, 7, 4]), rel=1e-12)


def test_it_is_refused_where_it_is_not_defined() -> None:
    dual, back = ({"name": "cycle_consistency", "method": method} for method in ("dual", "reconstruct"))
    for task, objective in (("seq2seq", back), ("classification", dual), ("regression", back)):
        with pytest.raises(ValidationError, match="cycle_consistency as it is set is not defined for the task"):
            tiny.experiment(task={"name": task}, output={"objectives": [objective]})
    with pytest.raises(UserError, match="token_classification has no decoder"):
        OBJECTIVES.build(dual)(None, rows([5]), tiny.experiment(task={"name": "token_classification"}).task)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "bart", "bert"])
def test_a_model_learns_to_go_there_and_back(family: str, tmp_path: Path) -> None:
    what = tiny.experiment(
        family,
        task={"name": "seq2seq", "target_length": 6},
        output={"objectives": [{"name": "cycle_consistency", "method": "dual", "strength": 1.0}]},
        optim={"steps": 40, "evaluate_every": 20, "lr": 1e-2},
    )
    data = tiny.dataset_of(lambda text, _: tiny.signal(text), pa.string())
    first, last = (report.metrics for report in tiny.trial(what, tmp_path, data=data).reports())
    assert last["train/cycle_consistency/dual"] < 0.9 * first["train/cycle_consistency/dual"]
    assert last["train/cycle_consistency/supervised"] < 0.9 * first["train/cycle_consistency/supervised"]


@pytest.mark.slow
def test_features_learn_what_is_needed_to_write_the_original(tmp_path: Path) -> None:
    data = tiny.dataset(train=16)  # short enough to be learnt by heart
    what = tiny.experiment(
        input={"augment": {"policy": [[{"name": "random_deletion", "p": 0.3}]]}},
        output={"objectives": [{"name": "cycle_consistency", "strength": 1.0}]},
        optim={"steps": 150, "evaluate_every": 30, "lr": 1e-2},
    )
    found = {}
    for trainable in ("full", "head"):
        output = what.spec()["output"] | {"trainable": {"name": trainable}}
        chosen = Experiment(**{**what.spec(), "output": output})
        reports = list(tiny.trial(chosen, tmp_path / trainable, data=data).reports())
        found[trainable] = reports[-1].metrics["train/cycle_consistency/reconstruction"]
    assert found["full"] < 0.9 * found["head"]  # a decoder alone cannot know what the encoder does not say
