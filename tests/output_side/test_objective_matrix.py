"""The contract of every objective x {encoder, T5, GPT-2} where it is defined x {1, 2 workers under DDP}.

One step on rows as a trial reads them. Two workers have the two halves of the one worker's batch. Objectives come from
the registry: a new one is here by itself, at its defaults and at what `ACTIVE` has for it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bothways.config import Experiment, Term
from bothways.contracts import Batch, Collective
from bothways.edges.local import OneWorker, execute
from bothways.models import reset
from bothways.registry import OBJECTIVES, TASKS
from bothways.training import ModelForward, own_modules
from bothways.training.answers import Speaker
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace
from tests import tiny
from tests.output_side.settings import ACTIVE, drawn_alike
from tests.workers import spawned

pytestmark = pytest.mark.slow

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "bert": {"name": "classification"},
    "t5": {"name": "seq2seq", "target_length": 5},
    "gpt2": {"name": "causal_lm", "target_length": 4},
}
WRITTEN: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "policy_gradient": [{"reward": "f1", "draws": 2}, {"reward": "f1", "draws": 1, "method": "self_critical"}],
    "cycle_consistency": [{"method": "dual"}],
}
"""In place of `ACTIVE` for models that write."""
for _family in FAMILIES:  # made as this file is imported: transformers saves nothing in a worker that is not the first
    tiny.model_dir(_family)
DATA: Mapping[str, Mapping[str, Any]] = {
    "clean": {"clean_source": "made in the test"},
    "auxiliary": {"tasks": [{"source": "made in the test"}]},
    "feedback": {"feedback": {"source": "made in the test"}},
}
OWN_ROWS = {
    "mixup": "each worker mixes its own rows, by a share and with partners that it draws",
    "supervised_contrastive": "a row is compared with the others of its worker",
    "policy_gradient": "each worker draws the answers to its own rows",
    "language_feedback reward": "each worker draws the answers to its own rows",
}
"""Two workers do not equal one, and why: what they do to the model is the same on both all the same."""
BY_PLACE = {"mixup", "policy_gradient", "language_feedback reward"}
"""What is drawn belongs to a place in the batch, so that rows in another order get other draws."""


@dataclass(frozen=True)
class Case:
    """An objective with its knobs, for one family of models."""

    family: str
    name: str
    knobs: str

    @property
    def spec(self) -> dict[str, Any]:
        return {"name": self.name, **json.loads(self.knobs)}

    @property
    def kind(self) -> str:
        return f"{self.name} reward" if self.spec.get("mode") == "reward" else self.name

    def experiment(self) -> Experiment:
        needs = OBJECTIVES.build(self.spec).beside  # type: ignore[attr-defined]
        return tiny.experiment(
            self.family,
            task=FAMILIES[self.family],
            data=DATA.get(needs.source, {}) if needs else {},
            input={"augment": {"n_aug": 1, "policy": [[{"name": "random_swap", "p": 0.5}]]}},
            output={"objectives": [self.spec]},
            optim={"steps": 2, "evaluate_every": 2},
        )


def cases() -> list[Any]:
    """Every setting of every objective, for the families whose tasks it is defined for."""
    found = []
    for family, described in FAMILIES.items():
        task = TASKS.build(dict(described))
        for name in OBJECTIVES.names():
            settings = [{}, *ACTIVE.get(name, [])]
            if task.writes:
                settings = [{}, *WRITTEN.get(name, ACTIVE.get(name, []))]
            for number, knobs in enumerate(settings):
                objective = OBJECTIVES.build({"name": name, **knobs})
                if task.logits not in objective.logits:  # type: ignore[attr-defined]
                    continue
                if knobs.get("method") == "dual" and family == "gpt2":  # it has no encoder beside its decoder
                    continue
                found.append(pytest.param(Case(family, name, json.dumps(knobs)), id=f"{family}-{name}-{number}"))
    return found


CASES = cases()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One pass of an objective: its loss, the parts of that, and the gradients, those of modules of its own too."""

    loss: float
    parts: Mapping[str, float]
    gradients: Mapping[str, Tensor]
    names: frozenset[str]

    def same(self, other: Step) -> bool:
        """To the last bit, in all that moves."""
        return self.loss == other.loss and all(torch.equal(other.gradients[k], v) for k, v in self.gradients.items())

    def close(self, other: Step) -> bool:
        """Within the rounding of float32: on the scale of the rows, whose gradients cancel to a thousandth of it in
        places (what is wrong here is wrong by hundredths: rows that are not shared, say)."""
        scale = max(float(value.abs().max()) for value in other.gradients.values())
        assert self.gradients.keys() == other.gradients.keys()
        near = {
            k: torch.allclose(v, other.gradients[k], rtol=1e-4, atol=1e-3 * scale) for k, v in self.gradients.items()
        }
        return all(near.values()) and self.loss == pytest.approx(other.loss, rel=1e-5, abs=1e-6)


class Bench:
    """A worker's models and data."""

    def __init__(self, collective: Collective, directory: Path) -> None:
        self.collective, self.directory, self.workspace = collective, directory, Workspace()

    def steps(self, case: Case) -> dict[str, Step]:
        """Of the objective, of the same rows turned round, of it at its neutral setting, and of cross-entropy."""
        what = case.experiment()
        dataset = (
            tiny.dataset(clean=15, tasks=12, feedback=12)
            if what.task.logits == "classes"
            else tiny.answered(12, clean=15)
        )
        self.trial = Trial(
            what,
            dataset,
            collective=self.collective,
            execute=execute,
            workspace=self.workspace,
            directory=self.directory,
        )
        batch = replace(next(self.trial._batches(0)), progress=0.5)
        (term,) = self.trial._output_side().terms
        member = OBJECTIVES.get(case.name)
        neutral = Term(objective=member(**member.neutral))
        plain = Term(objective=OBJECTIVES.build("cross_entropy"))
        return {
            "step": self.step(term, batch, 0.0),
            "turned": self.step(term, turned(batch), 0.0),
            "neutral": self.step(neutral, batch, 0.1),
            "plain": self.step(plain, batch, 0.1),
        }

    def step(self, term: Term, batch: Batch, dropout: float) -> Step:
        trial, workers = self.trial, self.collective
        module, seed = trial._bundle.module, trial.experiment.seed
        reset(trial._bundle, labels=trial._dataset.labels, dropout=dropout, seed=seed)
        module.zero_grad()
        module.train()
        own = own_modules(module, [term], seed)
        speaker = Speaker(trial.experiment.task, trial._bundle, trial._dataset.labels, self.workspace)
        start = copy.deepcopy(module).requires_grad_(False).eval()
        forward = ModelForward(module, workers.wrap(module), "fp32", own, workers, start=start, speaker=speaker)
        torch.manual_seed(workers.rank)
        loss = term.objective(forward, batch, trial.experiment.task)
        loss.total.backward()
        moved = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
        mine = own[term.objective].named_parameters() if term.objective in own else ()
        beside = {f"own {name}": workers.sum(value.grad) / workers.world for name, value in mine}  # type: ignore[operator]
        return Step(
            loss=float(workers.sum(loss.total.detach()) / workers.world),
            parts={name: float(value) for name, value in loss.parts.items()},
            gradients={name: value.detach().clone() for name, value in (moved | beside).items()},
            names=frozenset(name for name, _ in module.named_parameters()),
        )


def turned(batch: Batch) -> Batch:
    """The same rows, those beside them too, last to first."""
    return replace(
        batch,
        inputs={name: values.flip(0) for name, values in batch.inputs.items()},
        labels=batch.labels.flip(0),
        is_copy=batch.is_copy.flip(0),
        references=batch.references[::-1],
        taught={teacher: logits.flip(0) for teacher, logits in batch.taught.items()},
        beside={kind: tuple(map(turned, views)) for kind, views in batch.beside.items()},
    )


def measured(collective: Collective, directory: Path, asked: Sequence[Case]) -> list[dict[str, Step]]:
    """The steps of all cases, by one worker."""
    bench = Bench(collective, directory)
    with drawn_alike():
        return [bench.steps(case) for case in asked]


Found = Mapping[Case, Sequence[Mapping[str, Step]]]
"""Of each case what each worker has found."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Found:
    found = measured(OneWorker(), tmp_path_factory.mktemp("one"), [one.values[0] for one in CASES])
    return {one.values[0]: [steps] for one, steps in zip(CASES, found, strict=True)}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Found:
    asked = [one.values[0] for one in CASES]
    found = spawned(2, measured, asked, directory=tmp_path_factory.mktemp("two") / "workers")
    return {case: steps for case, *steps in zip(asked, *found, strict=True)}


@pytest.fixture(params=["one worker", "two workers"])
def found(request: pytest.FixtureRequest) -> Found:
    chosen: Found = request.getfixturevalue("alone" if request.param == "one worker" else "both")
    return chosen


@pytest.mark.parametrize("case", CASES)
def test_loss_parts_and_gradients_are_finite(case: Case, found: Found) -> None:
    for steps in found[case]:
        for step in steps.values():
            assert step.parts
            assert torch.isfinite(torch.tensor([step.loss, *step.parts.values()])).all()
            assert all(torch.isfinite(value).all() for value in step.gradients.values())


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_every_parameter(case: Case, found: Found) -> None:
    for steps in found[case]:
        step = steps["step"]
        assert step.names <= step.gradients.keys()
        # The softmax of attention does not see what all keys have in common: a key bias has no gradient by nature.
        assert {name for name, value in step.gradients.items() if not value.any()} <= {
            name for name in step.names if name.endswith("key.bias")
        }


@pytest.mark.parametrize("case", [one for one in CASES if one.values[0].kind not in BY_PLACE])
def test_the_order_of_the_rows_does_not_matter(case: Case, found: Found) -> None:
    assert all(steps["turned"].close(steps["step"]) for steps in found[case])


@pytest.mark.parametrize("case", CASES)
def test_the_neutral_setting_is_cross_entropy_to_the_last_bit(case: Case, found: Found) -> None:
    assert all(steps["neutral"].same(steps["plain"]) for steps in found[case])


@pytest.mark.parametrize("case", CASES)
def test_both_workers_move_the_model_alike(case: Case, both: Found) -> None:
    left, right = both[case]
    assert all(left[name].same(right[name]) for name in left)


@pytest.mark.parametrize("case", [one for one in CASES if one.values[0].kind not in OWN_ROWS])
def test_two_workers_equal_one_on_the_joint_batch(case: Case, alone: Found, both: Found) -> None:
    (one,), (two, _) = alone[case], both[case]
    assert two["step"].close(one["step"])
