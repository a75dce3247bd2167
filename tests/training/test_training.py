"""The loop: schedule, accumulation, early stopping, divergence, what is counted."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from bothways import training
from bothways.config import Optim
from bothways.errors import UserError
from bothways.results import Report
from bothways.training import Diverged, arithmetic
from bothways.training.optimizer import learning_rate
from bothways.training.workspace import Workspace
from tests import tiny


def reports(tmp_path: Path, workspace: Workspace, **parts: Any) -> list[Report]:
    return list(tiny.trial(tiny.experiment(**parts), tmp_path, workspace).reports())


def weights(workspace: Workspace) -> dict[str, torch.Tensor]:
    state = workspace.model(tiny.model_dir(), tiny.LABELS).module.state_dict()
    return {name: value.clone() for name, value in state.items()}


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "inverse_sqrt"])
def test_the_rate_warms_up_to_lr_then_follows_the_schedule_and_is_never_zero(schedule: Any) -> None:
    optim = Optim(steps=100, warmup=0.1, lr=0.5, schedule=schedule)
    rates = [learning_rate(optim, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == rates[10] == 0.5
    middle = {"linear": 0.25, "cosine": 0.25, "constant": 0.5, "inverse_sqrt": 0.5 * (10 / 55) ** 0.5}[schedule]
    assert rates[55] == pytest.approx(middle)
    assert min(rates) > 0


def test_no_warm_up_and_nothing_but_warm_up_both_work() -> None:
    assert learning_rate(Optim(steps=10, warmup=0, lr=1.0), 0) == 1.0
    assert learning_rate(Optim(steps=10, warmup=1, lr=1.0), 9) == 1.0


def test_accumulation_changes_memory_and_not_mathematics(tmp_path: Path, workspace: Workspace) -> None:
    found = []
    for accumulate in (1, 2, 3, 8):
        parts = {"optim": {"steps": 4, "accumulate": accumulate}, "model": {"dropout": 0.0}}
        reports(tmp_path / str(accumulate), workspace, **parts)
        found.append(weights(workspace))
    start = tiny.trial(tiny.experiment(), tmp_path / "start", workspace)
    assert not torch.allclose(weights(workspace)["classifier.weight"], found[0]["classifier.weight"], atol=1e-3)
    assert start.history == []
    for other in found[1:]:
        assert all(torch.allclose(value, other[name], atol=2e-6) for name, value in found[0].items())


def test_a_sum_of_objectives_is_the_sum_of_their_gradients(tmp_path: Path, workspace: Workspace) -> None:
    parts = {"model": {"dropout": 0.0}, "optim": {"steps": 3}}
    one = {"objectives": [{"name": "cross_entropy", "weight": 1.0}]}
    halves = {"objectives": [{"name": "cross_entropy", "weight": 0.25}, {"name": "rdrop", "alpha": 0, "weight": 0.75}]}
    reports(tmp_path / "one", workspace, output=one, **parts)
    expected = weights(workspace)
    last = reports(tmp_path / "halves", workspace, output=halves, **parts)[-1]
    assert all(torch.allclose(value, weights(workspace)[name], atol=2e-6) for name, value in expected.items())
    assert last.metrics["cost/passes"] == 6


def test_a_weight_of_zero_is_the_objective_left_out_to_the_last_bit(tmp_path: Path, workspace: Workspace) -> None:
    terms = [{"name": "cross_entropy"}, {"name": "rdrop", "alpha": 3.0, "weight": 0.0}]
    reports(tmp_path / "with", workspace, output={"objectives": terms})
    found = weights(workspace)
    reports(tmp_path / "without", workspace)
    assert all(torch.equal(value, found[name]) for name, value in weights(workspace).items())


def test_reports_come_every_few_steps_and_after_the_last(tmp_path: Path, workspace: Workspace) -> None:
    found = reports(tmp_path, workspace, optim={"steps": 7, "evaluate_every": 3})
    assert [report.step for report in found] == [3, 6, 7]
    assert all(math.isfinite(value) for report in found for value in report.metrics.values())
    assert {"train/loss", "train/cross_entropy/supervised", "selection/accuracy", "selection/macro_f1"} <= set(
        found[0].metrics
    )


def test_costs_are_counted_in_real_tokens_and_passes(tmp_path: Path, workspace: Workspace) -> None:
    data = tiny.dataset()
    words = sum(len(text.split()) + 2 for text in data.train["text"].to_pylist())
    terms = {"objectives": [{"name": "rdrop"}, {"name": "adversarial", "method": "pgd", "steps": 2}]}
    last = reports(tmp_path, workspace, optim={"steps": 10}, output=terms)[-1]  # 10 x 8 views: two epochs of 40 rows
    assert last.metrics["cost/tokens"] == 2 * words
    assert last.metrics["cost/steps"] == 10
    assert last.metrics["cost/passes"] == 10 * (2 + 4)


def test_early_stopping_stops_and_restores_the_best_weights(tmp_path: Path, workspace: Workspace) -> None:
    optim = {"steps": 400, "evaluate_every": 2, "patience": 3, "lr": 0.01}
    trial = tiny.trial(tiny.experiment(optim=optim), tmp_path, workspace)
    seen = []
    for report in trial.reports():
        seen.append((report.metrics["selection/accuracy"], -report.metrics["selection/log_loss"], weights(workspace)))
    best = max(range(len(seen)), key=lambda at: seen[at][:2])
    assert len(seen) < 200
    assert len(seen) == best + 1 + 3
    assert all(torch.equal(value, seen[best][2][name]) for name, value in weights(workspace).items())


def test_without_patience_the_last_weights_stay(tmp_path: Path, workspace: Workspace) -> None:
    trial = tiny.trial(tiny.experiment(), tmp_path, workspace)
    at_report = [weights(workspace) for _ in trial.reports()]
    assert all(torch.equal(value, at_report[-1][name]) for name, value in weights(workspace).items())


def test_divergence_is_named_with_its_step_and_the_next_trial_is_unharmed(tmp_path: Path, workspace: Workspace) -> None:
    reports(tmp_path / "before", workspace)
    expected = weights(workspace)
    trial = tiny.trial(tiny.experiment(), tmp_path / "wild", workspace)
    steps = trial.reports()
    next(steps)
    with torch.no_grad():
        workspace.model(tiny.model_dir(), tiny.LABELS).module.classifier.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="not finite at step 6"):
        next(steps)
    reports(tmp_path / "after", workspace)
    assert all(torch.equal(value, expected[name]) for name, value in weights(workspace).items())


def test_only_what_is_trainable_moves(tmp_path: Path, workspace: Workspace) -> None:
    base = workspace.model(tiny.model_dir(), tiny.LABELS).base
    reports(tmp_path, workspace, output={"trainable": {"name": "last_n", "n": 1}})
    moved = {
        name for name, value in weights(workspace).items() if name not in base or not torch.equal(value, base[name])
    }
    assert {name.split(".")[0] for name in moved} == {"bert", "classifier"}
    assert all(".layer.2." in name or "pooler" in name or "classifier" in name for name in moved)


def test_embedding_rows_that_no_text_touches_stay_exactly_at_their_base(tmp_path: Path, workspace: Workspace) -> None:
    reports(tmp_path, workspace, optim={"weight_decay": 0.1})
    name = "bert.embeddings.word_embeddings.weight"
    base, now = workspace.model(tiny.model_dir(), tiny.LABELS).base[name], weights(workspace)[name]
    moved = (base != now).any(dim=1)
    assert not moved[-len(tiny.UNSEEN) :].any()
    assert int(moved.sum()) > 20


def test_bf16_is_nearly_the_same_loss_and_the_weights_stay_fp32(tmp_path: Path, workspace: Workspace) -> None:
    exact = reports(tmp_path / "fp32", workspace, optim={"steps": 3})[-1].metrics["train/loss"]
    short = reports(tmp_path / "bf16", workspace, optim={"steps": 3, "precision": "bf16"})[-1].metrics["train/loss"]
    assert short == pytest.approx(exact, rel=0.02)
    assert short != exact
    assert {value.dtype for value in weights(workspace).values()} == {torch.float32}


@pytest.mark.parametrize("here", [False, True])
def test_auto_is_bf16_where_the_hardware_multiplies_it(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    monkeypatch.setattr(arithmetic, "multiplies_bf16", lambda device: here)
    found = {
        precision: reports(tmp_path / precision, workspace, optim={"steps": 3, "precision": precision})[-1].metrics
        for precision in ("fp32", "bf16", "auto")
    }
    losses = {precision: metrics["train/loss"] for precision, metrics in found.items()}
    assert losses["auto"] == losses["bf16" if here else "fp32"]
    assert losses["bf16"] != losses["fp32"]


def test_dropout_of_the_model_is_replaced_and_comes_back(tmp_path: Path, workspace: Workspace) -> None:
    module = workspace.model(tiny.model_dir(), tiny.LABELS).module
    rates = set()
    for dropout in (0.35, None):
        tiny.trial(tiny.experiment(model={"dropout": dropout}), tmp_path, workspace)
        rates.add(tuple(part.p for part in module.modules() if isinstance(part, torch.nn.Dropout)))
        assert module.config.hidden_dropout_prob == (dropout or 0.1)
    assert {len(set(found)) for found in rates} == {1}
    assert {found[0] for found in rates} == {0.35, 0.1}


def test_a_model_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        tiny.trial(tiny.experiment(model={"source": str(tmp_path / "nowhere")}), tmp_path)


def test_the_averaged_weights_are_what_is_evaluated_and_kept(tmp_path: Path, workspace: Workspace) -> None:
    optim = {"steps": 6, "evaluate_every": 1, "average": "ema", "ema_decay": 0.5, "lr": 0.01}
    trial = tiny.trial(tiny.experiment(optim=optim), tmp_path, workspace)
    expected = weights(workspace)
    found = []
    for report in trial.reports():
        decay = min(0.5, (1 + report.step) / (10 + report.step))
        last = weights(workspace)
        expected = {name: decay * value + (1 - decay) * last[name] for name, value in expected.items()}
        found.append(report.metrics["selection/log_loss"])
    kept = weights(workspace)
    assert any((kept[name] - last[name]).abs().max() > 1e-3 for name in kept)
    for name, value in expected.items():
        torch.testing.assert_close(kept[name], value, rtol=1e-4, atol=1e-6)
    module = workspace.model(tiny.model_dir(), tiny.LABELS).module
    forward = training.ModelForward(module, module, "fp32")
    sums = training.sums(forward, trial.experiment.task, trial._evaluation_batches("selection")[0])
    assert trial.experiment.task.metrics(sums)["log_loss"] == found[-1]


@pytest.mark.parametrize("algorithm", ["adamw", "nadam", "radam", "sgd", "adafactor"])
@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.slow
def test_averaged_training_goes_on_to_the_last_bit(
    tmp_path: Path, workspace: Workspace, algorithm: str, patience: int | None
) -> None:
    optim = {"steps": 6, "evaluate_every": 1, "average": "ema", "algorithm": algorithm, "patience": patience}
    what = tiny.experiment(optim=optim, output={"trainable": {"name": "gradual_unfreezing", "every": 1}})
    list(tiny.trial(what, tmp_path / "straight", workspace).reports())
    expected = weights(workspace)
    for stop in (1, 2, 3, 5):
        broken = tiny.trial(what, tmp_path / str(stop), workspace)
        for report in broken.reports():
            if report.step == stop:
                broken.checkpoint()
                break
        list(tiny.trial(what, tmp_path / str(stop), workspace).reports())
        assert all(torch.equal(value, expected[name]) for name, value in weights(workspace).items())


def test_balanced_class_weights_are_those_of_the_training_rows(tmp_path: Path, workspace: Workspace) -> None:
    data = tiny.dataset()
    labels = pa.array([0] * 32 + [1] * 8, pa.int64())
    data = dataclasses.replace(data, train=data.train.set_column(3, "label", labels), digest="unequal")
    found = []
    for weights_ in ("balanced", [40 / (2 * 32), 40 / (2 * 8)], []):
        output = {"objectives": [{"name": "cross_entropy", "class_weights": weights_}]}
        what = tiny.experiment(output=output, optim={"steps": 5})
        assert what.spec()["output"]["objectives"][0]["class_weights"] == weights_
        *_, last = tiny.trial(what, tmp_path / str(len(found)), workspace, data).reports()
        found.append(last.metrics["train/loss"])
    assert found[0] == found[1] != found[2]


def test_balanced_sampling_and_copies_reach_the_training(tmp_path: Path, workspace: Workspace) -> None:
    data = tiny.dataset()
    labels = pa.array([0] * 36 + [1] * 4, pa.int64())
    data = dataclasses.replace(data, train=data.train.set_column(3, "label", labels), digest="very unequal")
    policy = {"policy": [[{"name": "random_swap", "p": 0.5}]]}
    for parts, expected in (
        ({"optim": {"steps": 10, "sampling": "balanced"}}, [40, 40]),
        ({"optim": {"steps": 9}, "input": {"augment": {"balance": True, **policy}}}, [36, 36]),
        ({"optim": {"steps": 5}}, [36, 4]),
    ):
        trial = tiny.trial(tiny.experiment(**parts), tmp_path / str(expected), workspace, data)
        batches = list(trial._batches(0))
        assert torch.bincount(torch.cat([batch.labels for batch in batches])).tolist() == expected
        copies = sum(int(batch.is_copy.sum()) for batch in batches)
        assert copies == (32 if "input" in parts else 0)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_model_that_reads_no_embeddings_refuses_what_needs_them(family: str, tmp_path: Path) -> None:
    what = tiny.experiment(family, output={"objectives": [{"name": "adversarial"}]})
    with pytest.raises(UserError, match=r"ForSequenceClassification reads no embeddings"):
        list(tiny.trial(what, tmp_path).reports())
