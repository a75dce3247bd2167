"""Learning from answers: what is drawn is what the model says, formulas against numpy, and rewards that rise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from bothways import models, registry
from bothways.batches.batching import Encode, collate, evaluation_views
from bothways.contracts import NO_LABEL, Batch, Drawn, Said
from bothways.errors import UserError
from bothways.output_side.answers import PolicyGradient, token_log_probabilities
from bothways.output_side.objectives.language_feedback import worth
from bothways.output_side.rewards import Reward
from bothways.registry import OBJECTIVES, REWARDS, TASKS
from bothways.tasks.classification import Classification
from bothways.training import ModelForward
from bothways.training.answers import Speaker
from bothways.training.workspace import Workspace
from tests import tiny

WRITING: dict[str, dict[str, Any]] = {
    "t5": {"name": "seq2seq", "target_length": 5},
    "bart": {"name": "seq2seq", "target_length": 5},
    "bert": {"name": "seq2seq", "target_length": 5},
    "gpt2": {"name": "causal_lm", "target_length": 4},
    "llama": {"name": "causal_lm", "target_length": 4},
}
ROWS = [("the film was good", "great"), ("a plot", "dull bad dull"), ("it was one very dull and awful story", "bad")]


def writer(family: str, *, sharp: bool = False) -> tuple[ModelForward, Batch, Any]:
    """A model that writes, a batch for it, and its task. `sharp`: far from uniform."""
    task = TASKS.build(WRITING[family])
    bundle = models.load(tiny.model_dir(family), (), task=task)
    models.reset(bundle, labels=(), dropout=0.0, seed=3)
    if sharp:
        with torch.no_grad():
            for value in bundle.module.parameters():
                value *= 4 if value.dim() > 1 else 1
    encode = Encode(tokenizer_path=bundle.path, max_length=16, paired=False, task=task, start=bundle.start_id)
    columns = {
        "id": pa.array(range(len(ROWS)), pa.int64()),
        "text": pa.array([text for text, _ in ROWS]),
        "pair": pa.nulls(len(ROWS), pa.string()),
        "label": pa.array([target for _, target in ROWS]),
    }
    batch = collate(encode(evaluation_views(pa.table(columns))), bundle.pad_id)
    speaker = Speaker(task, bundle, (), Workspace())
    return ModelForward(bundle.module, bundle.module, "fp32", start=bundle.module, speaker=speaker), batch, task


@pytest.mark.slow
@pytest.mark.parametrize("family", WRITING)
def test_the_likeliest_answer_is_what_the_model_finds_likeliest_in_the_rows_made_of_it(family: str) -> None:
    forward, batch, _ = writer(family, sharp=True)
    drawn = forward.draw(batch, 2, 0.0)
    assert len(drawn.answered) == 2 * len(batch) == len(drawn.said)
    assert drawn.said.answers[:3] == drawn.said.answers[3:]
    with torch.no_grad():
        logits = forward(drawn.answered)
    real = drawn.answered.labels != NO_LABEL
    assert real.any(dim=1).all()
    assert torch.equal(logits.argmax(dim=-1)[real], drawn.answered.labels[real])
    assert drawn.said.prompts[:3] == tuple(text for text, _ in ROWS)
    assert drawn.said.references[:3] == tuple(target for _, target in ROWS)
    # Beside the batch the rows are longer or shorter, and say the same.
    with torch.no_grad():
        joined = forward(batch.join(drawn.answered))[len(batch) :]
    size = logits.shape[1]
    assert torch.allclose(joined[:, :size][real], logits[real], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_answers_are_drawn_with_the_probabilities_of_the_model(family: str) -> None:
    forward, batch, _ = writer(family)
    torch.manual_seed(0)
    count = 3000
    drawn = forward.draw(batch.slice(0, 1), count, 0.7)
    with torch.no_grad():
        logits = forward(batch.slice(0, 1))[0]
    at = int((batch.labels[0] != NO_LABEL).int().argmax())
    expected = (logits[at] / 0.7).softmax(dim=-1)
    first = drawn.answered.labels[:, at]
    shares = torch.bincount(first, minlength=len(expected)) / count
    assert (shares - expected).abs().max() < 5 * float((expected * (1 - expected) / count).sqrt().max())
    assert len(set(drawn.said.answers)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "gpt2"])
@pytest.mark.parametrize(
    "spec",
    [
        {"name": "policy_gradient", "reward": {"name": "rouge", "kind": "rouge1"}, "kl": 0.1},
        {"name": "policy_gradient", "method": "self_critical", "reward": "f1"},
        {"name": "policy_gradient", "method": "reinforce", "reward": "bleu", "kl": 0.0},
    ],
    ids=lambda spec: spec.get("method", "group_relative"),
)
def test_gradients_of_written_answers_are_finite_and_reach_every_parameter(family: str, spec: dict[str, Any]) -> None:
    forward, batch, task = writer(family)
    torch.manual_seed(1)
    loss = OBJECTIVES.build(spec)(forward, batch, task)
    assert torch.isfinite(loss.total)
    loss.total.backward()
    assert all(value.grad is not None for value in forward.module.parameters())


LABELS = torch.tensor([[2, 0, NO_LABEL], [1, NO_LABEL, NO_LABEL], [0, 1, 2], [2, 2, NO_LABEL]])  # 2 rows, 2 draws
LOGITS = np.random.default_rng(0).normal(size=(4, 3, 3))
BEFORE = np.random.default_rng(1).normal(size=(4, 3, 3))
REWARDS_ = np.array([[0.3, 1.0], [0.9, 0.1]])


def logs(logits: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """log p of every token of every answer."""
    normal = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = LABELS.numpy()
    return [np.array([normal[k, t, y] for t, y in enumerate(row) if y != NO_LABEL]) for k, row in enumerate(labels)]


@pytest.mark.parametrize("method", ["reinforce", "self_critical", "group_relative"])
def test_the_policy_gradient_is_its_formula(method: Any) -> None:
    gradient = PolicyGradient(method=method, draws=2, temperature=1.0, kl=0.2)
    greedy = np.array([0.5, 0.2])
    advantages = gradient.advantages(torch.tensor(REWARDS_), torch.tensor(greedy))
    ours, before = (token_log_probabilities(torch.tensor(table), LABELS) for table in (LOGITS, BEFORE))
    found, divergence = gradient.loss(ours, LABELS, advantages, before)
    expected = {
        "reinforce": REWARDS_ - REWARDS_[::-1],  # the other draw of the row
        "self_critical": REWARDS_ - greedy,
        "group_relative": (REWARDS_ - REWARDS_.mean(0)) / (REWARDS_.std(0) + 1e-4),
    }[method]
    np.testing.assert_allclose(advantages.numpy(), expected)
    weigh = np.mean if method == "group_relative" else np.sum
    pairs = list(zip(logs(LOGITS), logs(BEFORE), strict=True))
    value = -np.mean([a * weigh(now) for a, (now, _) in zip(expected.ravel(), pairs, strict=True)])
    apart = np.mean([np.mean(np.exp(then - now) - (then - now) - 1) for now, then in pairs])
    assert float(divergence) == pytest.approx(apart)
    assert float(found) == pytest.approx(value + 0.2 * apart)


class Stub:
    """A classifier whose logits are a table, and whose answers are drawn from it."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, batch: Batch) -> Tensor:
        return self.logits

    def draw(self, batch: Batch, count: int, temperature: float) -> Drawn:
        drawn = self.logits.argmax(dim=-1)
        if temperature:
            drawn = torch.multinomial(
                (self.logits.detach() / temperature).softmax(-1), count, replacement=True
            ).T.flatten()
        rows = batch.repeat(count)
        names = [str(label) for label in drawn.tolist()]
        said = Said(prompts=("",) * len(rows), answers=tuple(names), references=tuple(map(str, rows.labels.tolist())))
        return Drawn(answered=Batch(inputs=rows.inputs, labels=drawn, is_copy=rows.is_copy), said=said)


@pytest.mark.parametrize("method", ["reinforce", "self_critical"])
def test_the_mean_gradient_is_that_of_the_expected_reward(method: str) -> None:
    logits = torch.tensor([[0.3, -0.2, 0.9], [1.0, 0.1, -0.5]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, 1])
    batch = Batch(inputs={"attention_mask": torch.ones(2, 1, dtype=torch.int64)}, labels=labels, is_copy=labels.bool())
    torch.manual_seed(0)
    objective = OBJECTIVES.build(
        {"name": "policy_gradient", "method": method, "draws": 64, "kl": 0.0, "supervised": 0.0}
    )
    total = torch.zeros_like(logits)
    for _ in range(300):
        (found,) = torch.autograd.grad(objective(Stub(logits), batch, Classification()).total, logits)
        total += found / 300
    (expected,) = torch.autograd.grad(-logits.softmax(-1)[[0, 1], labels].mean(), logits)
    assert (total - expected).abs().max() < 0.01
    assert expected.abs().max() > 0.08


class Pairs:
    """Logits that are a table, now and before."""

    def __init__(self, now: Tensor, before: Tensor) -> None:
        self.now, self.before = now, before

    def __call__(self, batch: Batch) -> Tensor:
        return self.now[: len(batch)]

    def reference(self, batch: Batch) -> Tensor:
        return self.before[: len(batch)]


def test_dpo_is_equation_7() -> None:
    objective = OBJECTIVES.build({"name": "preference", "beta": 0.3, "strength": 2.0, "supervised": 0.5})
    draw = np.random.default_rng(2)
    now, before = draw.normal(size=(6, 3)), draw.normal(size=(4, 3))
    labels = np.array([0, 1, 2, 0, 1, 1])  # two rows of the batch, two chosen, two rejected

    def rows(part: slice) -> Batch:
        size = len(labels[part])
        mask = torch.ones(size, 1, dtype=torch.int64)
        return Batch(inputs={"attention_mask": mask}, labels=torch.tensor(labels[part]), is_copy=torch.zeros(size) > 0)

    batch = Batch(
        inputs=rows(slice(0, 2)).inputs,
        labels=rows(slice(0, 2)).labels,
        is_copy=torch.zeros(2) > 0,
        beside={objective.beside: (rows(slice(2, 4)), rows(slice(4, 6)))},
    )
    found = objective(Pairs(torch.tensor(now), torch.tensor(before)), batch, Classification())
    log = [table - np.log(np.exp(table).sum(-1, keepdims=True)) for table in (now, before)]
    hard = -log[0][:2][[0, 1], labels[:2]].mean()
    d = log[0][2:][range(4), labels[2:]] - log[1][range(4), labels[2:]]
    margin = 0.3 * (d[:2] - d[2:])
    expected = 0.5 * hard + 2.0 * np.log1p(np.exp(-margin)).mean()
    assert float(found.total) == pytest.approx(expected)
    assert float(found.parts["preferred"]) == pytest.approx((margin > 0).mean())


def said(answer: str, reference: str) -> Said:
    return Said(prompts=("p",), answers=(answer,), references=(reference,))


@pytest.mark.parametrize(
    ("spec", "answer", "reference", "worth"),
    [
        ("accuracy", " Good", "good", 1.0),
        ("accuracy", "goods", "good", 0.0),
        ("f1", "the old tool", "an old tool for text", 2 / 3),
        ("f1", "北京大学", "北京", 2 / 3),
        ({"name": "rouge", "kind": "rouge1"}, "a b c", "a b d", 2 / 3),
        ({"name": "rouge", "kind": "rouge2"}, "a b c", "a b d", 1 / 2),
        ({"name": "rouge", "kind": "rouge_l"}, "c a b", "a b d", 2 / 3),
        ("bleu", "a small tool for text", "a small tool for text", 1.0),
        ("bleu", "x", "a small tool for text", 0.0),
    ],
)
def test_what_answers_are_worth(spec: Any, answer: str, reference: str, worth: float) -> None:
    assert REWARDS.build(spec)(said(answer, reference), None)[0] == pytest.approx(worth, abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "better", "worse", "reward"),
    [
        ("good", "good", "bad", 1.0),
        ("bad", "good", "bad", -1.0),
        ("dull", "good", "bad", 0.0),
        ("tool for text", "old tool for text", "a tool", 6 / 7 - 1 / 2),
        ("good", "good", "good", 1.0),  # nothing was wrong with it
        ("bad", "good", "good", 0.0),
    ],
)
def test_feedback_rewards_what_is_like_the_revision_and_not_like_what_was_revised(
    answer: str, better: str, worse: str, reward: float
) -> None:
    assert worth(answer, better, worse) == pytest.approx(reward)


def test_a_package_adds_a_reward_by_an_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = """
from bothways.output_side.rewards import WordReward
from bothways.registry import REWARDS

@REWARDS.register("brevity")
class Brevity(WordReward):
    limit: int = 5

    def of(self, answer, reference):
        return float(len(answer) <= self.limit)
"""
    (tmp_path / "my_rewards.py").write_text(text)
    about = tmp_path / "my_rewards-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rewards\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bothways.reward]\nbrevity = my_rewards\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.installed.cache_clear()
    try:
        objective = OBJECTIVES.build({"name": "policy_gradient", "reward": {"name": "brevity", "limit": 3}})
        assert OBJECTIVES.build(objective.spec()) == objective
        assert list(objective.reward(said("abc", ""), None)) == [1.0]
    finally:
        registry.installed.cache_clear()
        REWARDS._members.pop("brevity", None)
    with pytest.raises(UserError, match="unknown reward 'rougee': did you mean 'rouge'"):
        REWARDS.build("rougee")


def test_every_reward_knows_what_it_is() -> None:
    for name in REWARDS.names():
        member = REWARDS.get(name)
        assert issubclass(member, Reward)
        assert member.term
        assert member.__doc__


@pytest.mark.slow
def test_a_reward_model_judges_answers_and_is_known_by_its_content(tmp_path: Path) -> None:
    what = tiny.experiment(optim={"steps": 120, "lr": 5e-3, "evaluate_every": 60})
    teacher = tiny.trial(what, tmp_path / "judge")
    assert [r.metrics for r in teacher.reports()][-1]["selection/accuracy"] > 0.9
    directory = str(teacher.save())
    reward = REWARDS.build({"name": "reward_model", "directory": directory, "label": tiny.LABELS[1]})
    forward, _, _ = writer("t5")
    answers = Said(prompts=("", ""), answers=(" ".join(tiny.GOOD), " ".join(tiny.BAD)), references=("", ""))
    good, bad = reward(answers, forward)
    assert good > 0.9 > 0.1 > bad
    with pytest.raises(UserError, match="no class 'great'"):
        reward.model_copy(update={"label": "great"})(answers, forward)
    with pytest.raises(UserError, match="gives no numbers"):
        reward.model_copy(update={"label": None})(answers, forward)
    with pytest.raises(UserError, match="has changed since"):
        reward.model_copy(update={"digest": "0" * 16})(answers, forward)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reinforce", "self_critical", "group_relative"])
def test_reward_alone_teaches_a_classifier(method: str, tmp_path: Path) -> None:
    objective = {"name": "policy_gradient", "method": method, "supervised": 0.0, "kl": 0.0}
    optim = {"steps": 150, "lr": 5e-3, "evaluate_every": 25}
    last = [
        report.metrics
        for report in tiny.trial(
            tiny.experiment(output={"objectives": [objective]}, optim=optim), tmp_path / "trial"
        ).reports()
    ]
    assert last[-1]["selection/accuracy"] > 0.8
    assert last[-1]["train/policy_gradient/reward"] > last[0]["train/policy_gradient/reward"] + 0.2
