"""Several tasks at once: the loss of each row is that of its own task's head, and their rows come in proportion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bothways.batches import mixing
from bothways.config import Data
from bothways.contracts import Batch, Beside, Outputs
from bothways.data import load
from bothways.errors import UserError
from bothways.registry import OBJECTIVES
from bothways.tasks.classification import Classification
from bothways.training.workspace import Workspace
from tests import tiny

DRAW = np.random.default_rng(3)
N, M, H = 3, 6, 4
FEATURES, WEIGHT = DRAW.normal(size=(N + M, H)), DRAW.normal(size=(2, H))
HEADS, BIAS = DRAW.normal(size=(7, H)), DRAW.normal(size=7)
SLICES = [slice(0, 2), slice(2, 5), slice(5, 7)]
OF_OTHERS = [0, 4, 6, 2, 1, 5]
TASK_OF = [0, 1, 2, 1, 0, 2]


class Plain:
    """A stand-in for the model: features are a table the test owns."""

    def __init__(self) -> None:
        self.features = torch.tensor(FEATURES, requires_grad=True)
        self.heads = nn.Linear(H, 7).double()
        self.heads.load_state_dict({"weight": torch.tensor(HEADS), "bias": torch.tensor(BIAS)})

    def outputs(self, batch: Batch, embeddings: Tensor | None = None) -> Outputs:
        assert batch.labels[N:].tolist() == OF_OTHERS
        weight = torch.tensor(WEIGHT)
        return Outputs(self.features @ weight.T, self.features, weight)

    def own(self, objective: Any) -> nn.Module:
        return self.heads


def rows(labels: list[int]) -> Batch:
    ids = torch.ones(len(labels), 2, dtype=torch.int64)
    return Batch(
        inputs={"input_ids": ids, "attention_mask": ids},
        labels=torch.tensor(labels),
        is_copy=torch.zeros(len(labels), dtype=torch.bool),
    )


def test_the_loss_and_its_gradient_are_those_of_a_head_for_each_task() -> None:
    objective = OBJECTIVES.build({"name": "multitask", "strength": 0.7, "per_row": 2}).for_tasks([2, 3, 2])
    assert objective.modules(H, 2).weight.shape == HEADS.shape
    forward = Plain()
    loss = objective(forward, replace(rows([0, 1, 1]), beside={objective.beside: (rows(OF_OTHERS),)}), Classification())

    def value(features: Any, heads: Any) -> float:
        def nll(logits: Any, label: int) -> float:
            return float(np.log(np.exp(logits).sum()) - logits[label])

        hard = np.mean([nll(features[i] @ WEIGHT.T, label) for i, label in enumerate([0, 1, 1])])
        auxiliary = []
        for row, label, task in zip(features[N:], OF_OTHERS, TASK_OF, strict=True):
            own = SLICES[task]
            auxiliary.append(nll(heads[own] @ row + BIAS[own], label - own.start))
        return float(hard + 0.7 * np.mean(auxiliary))

    assert float(loss.total.detach()) == pytest.approx(value(FEATURES, HEADS), rel=1e-12)
    loss.total.backward()
    for found, at, of in (
        (forward.features.grad, FEATURES, lambda moved: value(moved, HEADS)),
        (forward.heads.weight.grad, HEADS, lambda moved: value(FEATURES, moved)),
    ):
        assert found is not None
        numeric = np.zeros_like(at)
        for place in np.ndindex(*at.shape):
            for sign in (1, -1):
                moved = at.copy()
                moved[place] += sign * 1e-5
                numeric[place] += sign * of(moved) / 2e-5
        np.testing.assert_allclose(found.numpy(), numeric, atol=1e-9)


def test_the_temperature_gives_small_tasks_a_larger_part() -> None:
    assert mixing.tempered([20, 80], 1.0) is None
    found = mixing.tempered([20, 80], 2.0)
    assert found is not None
    assert found[:20].sum() / found.sum() == pytest.approx(np.sqrt(20) / (np.sqrt(20) + np.sqrt(80)))


def test_rows_of_tasks_have_labels_of_their_own_and_no_text_of_a_split(tmp_path: Path) -> None:
    def write(name: str, found: list[dict[str, Any]]) -> str:
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist(found), tmp_path / f"{name}.parquet")
        return str(tmp_path / f"{name}.parquet")

    ours = write("films", [{"text": f"film {n}", "label": "good" if n % 2 else "bad"} for n in range(40)])
    splits = {"train": 20, "selection": 6, "test": 8}
    plain = load(Data(source=ours, splits=splits))
    leaks = [{"review": table["text"][0].as_py(), "stars": "1"} for table in (plain.train, plain.selection, plain.test)]
    foods = write("foods", [*leaks, *({"review": f"food {n}", "stars": str(n % 3)} for n in range(9))])
    topics = write("topics", [{"text": f"food {n}", "label": "ab"[n % 2]} for n in range(5)])
    data = Data(
        source=ours,
        splits=splits,
        tasks=[{"source": foods, "text": "review", "label": "stars"}, {"source": topics}],
    )
    found = load(data)
    assert found.auxiliary_classes == (3, 2)
    first, second = found.auxiliary
    assert first["text"].to_pylist() == [f"food {n}" for n in range(9)]
    assert first["label"].to_pylist() == [0, 1, 2] * 3
    assert second["label"].to_pylist() == [3, 4, 3, 4, 3]  # one text may be of two tasks
    assert first.schema == second.schema == found.train.schema
    assert found.rows("auxiliary").num_rows == 14
    assert found.train.equals(plain.train) and found.labels == plain.labels and found.digest != plain.digest
    single = write("single", [{"text": f"new {n}", "label": "one"} for n in range(5)])
    with pytest.raises(UserError, match=r"single\.parquet has 1 different labels in 5 rows"):
        load(Data(source=ours, splits=splits, tasks=[{"source": single}]))


def test_tasks_that_are_missing_or_unlike_ours_are_refused_before_anything_starts() -> None:
    terms = {"output": {"objectives": ["cross_entropy", "multitask"]}}
    with pytest.raises(ValidationError, match=r"name the labelled rows of the others in data\.tasks"):
        tiny.experiment(**terms)
    with pytest.raises(ValidationError, match=r"pairs\.tsv has pairs, data\.source single texts"):
        tiny.experiment(**terms, data={"tasks": [{"source": "pairs.tsv", "pair": "b"}]})
    with pytest.raises(ValidationError, match="multitask as it is set is not defined for the task regression"):
        tiny.experiment(**terms, task={"name": "regression"}, data={"tasks": [{"source": "a.tsv"}]})
    assert "tasks" not in tiny.experiment().spec()["data"]  # so that older experiments keep their identity


@pytest.mark.slow
def test_a_training_reads_every_task_in_its_part_and_learns_it(tmp_path: Path) -> None:
    workspace, data = Workspace(), tiny.dataset(tasks=24)
    what = tiny.experiment(
        data={"tasks": [{"source": "made in the test"}]},
        output={"objectives": [{"name": "multitask", "per_row": 2, "temperature": 1e9}]},
        optim={"steps": 100, "evaluate_every": 50, "lr": 1e-2},
    )
    trial = tiny.trial(what, tmp_path / "one", workspace, data)
    kind = Beside(source="auxiliary", per_row=2, temperature=1e9)
    batches = list(trial._batches(0))
    labels = torch.cat([batch.beside[kind][0].labels for batch in batches])
    assert 0.45 < float((labels < 2).double().mean()) < 0.55  # the one with half as many rows comes as often
    assert labels.max() == 4
    first, last = (report.metrics for report in trial.reports())
    assert last["train/multitask/auxiliary"] < 0.8 * first["train/multitask/auxiliary"]
    assert last["train/multitask/auxiliary_right"] > 0.6
    names = set(workspace.model(tiny.model_dir(), tiny.LABELS).module.state_dict())
    assert not [name for name in names if "multitask" in name]  # the heads are not the model's
