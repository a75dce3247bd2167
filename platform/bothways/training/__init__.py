"""The training loop: a generator of progress. Whoever iterates it decides whether to go on, and what to keep.

Its world is batches and a model: schedulers, trackers and files are the caller's.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bothways import seeding
from bothways.config import Optim, OutputSide, Term
from bothways.contracts import Batch, Collective, TaskLike
from bothways.joint.weightings import Weigher
from bothways.output_side.trainable import body
from bothways.training.forward import ModelForward as ModelForward
from bothways.training.forward import Own, SpeakerLike, last_linear
from bothways.training.forward import predictions as predictions
from bothways.training.optimizer import Optimizer

State = Mapping[str, Any]


class Diverged(ArithmeticError):  # noqa: N818 - what happened to a run, as one says it
    """The loss or its gradient became infinite or not a number."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """After `step` optimiser steps: finite `metrics`, and `state()`, from which training goes on to the last bit.

    `sums`: the task's over the selection rows, of which `selection/…` in `metrics` is made.
    """

    step: int
    metrics: Mapping[str, float]
    sums: Tensor
    state: Callable[[], State]


def own_modules(module: nn.Module, terms: Sequence[Term], seed: int) -> Own:
    """What the objectives have beside the model, on its device; each depends on `seed` and the objective only."""
    last = last_linear(module)
    own: Own = {}
    for term in terms:
        torch.manual_seed(seeding.integer(seed, "own", json.dumps(term.objective.spec(), sort_keys=True)))
        made = term.objective.modules(last.in_features, last.out_features)
        if made is not None:
            own[term.objective] = made.to(last.weight.device).train()
    return own


def last_shared(module: nn.Module) -> Tensor:
    """The last weight matrix of the body that moves, which all objectives go through; if none does, the head's."""
    found = [value for value in body(module).parameters() if value.dim() == 2 and value.requires_grad]
    return found[-1] if found else last_linear(module).weight


def score(task: TaskLike, metrics: Mapping[str, float]) -> tuple[float, ...]:
    """The task's ranking of a model as a tuple that is larger for a better one."""
    return tuple(metrics[name] if task.directions[name] == "max" else -metrics[name] for name in task.ranking)


def no_sums(task: TaskLike, classes: int) -> Tensor:
    """The task's sums over no rows: what a worker without rows contributes."""
    return torch.zeros(task.width(classes), dtype=torch.float64)


def sums(forward: ModelForward, task: TaskLike, batches: Sequence[Batch]) -> Tensor:
    """The task's sums over the batches of this worker."""
    total = no_sums(task, int(forward.module.config.num_labels))  # type: ignore[union-attr, arg-type]
    for batch, logits in predictions(forward, batches):
        total = total + task.sums(logits, batch)
    return total


@dataclass
class _Tally:
    """Float64 sums by name since the last report, this worker's; added up over the workers when they are read."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, name: str, value: Tensor) -> None:
        value = value.detach().double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def total(self, collective: Collective) -> dict[str, float]:
        names = sorted(self.sums)
        values = collective.sum(torch.stack([self.sums[name].cpu() for name in names])).tolist()
        return dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class Terms:
    """The summands of the loss, and what weighs them against each other."""

    terms: Sequence[Term]
    weigher: Weigher

    @property
    def names(self) -> list[str]:
        """A name for each: its objective's, with a number where one occurs twice."""
        plain = [str(term.objective.name) for term in self.terms]
        return [name if plain.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(plain)]

    def weights(self) -> dict[str, float]:
        """Of each, at this step."""
        return dict(zip(self.names, self.weigher.weights(), strict=True))

    def cost(self) -> float:
        """What a step costs in steps of plain cross-entropy; a backward pass counts as two forward passes."""
        passes: list[tuple[int, int]] = [term.objective.passes for term in self.terms]
        return sum(forward + 2 * backward for forward, backward in passes) / 3


def _step_gradients(
    forward: ModelForward, batch: Batch, terms: Terms, task: TaskLike, cuts: int, tally: _Tally
) -> None:
    """Add the gradients of the weighed objectives, mean over the batch, to the parameters.

    The batch is cut into `cuts` slices, each weighted by its rows; each (slice, objective) is one forward and one
    backward pass, and only the last one synchronises the workers.
    """
    rows = len(batch)
    edges = [rows * number // cuts for number in range(cuts + 1)]
    slices = [batch.slice(*edge) for edge in itertools.pairwise(edges) if edge[0] < edge[1]]
    passes = [(part, number) for part in slices for number in range(len(terms.terms))]
    names = terms.names
    local: Callable[[], AbstractContextManager[Any]] = getattr(forward.wrapped, "no_sync", nullcontext)
    for count, (part, number) in enumerate(passes, start=1):
        with nullcontext() if count == len(passes) else local():
            loss = terms.terms[number].objective(forward, part, task)
            share = len(part) / rows
            weighed = terms.weigher.weigh(number, loss.total, share)
            torch.autograd.backward(weighed)
        tally.add("loss", weighed)
        for key, value in loss.parts.items():
            tally.add(f"{names[number]}/{key}", share * value)
    beside = [view for views in batch.beside.values() for view in views]
    tally.add("tokens", torch.stack([view.inputs["attention_mask"].sum() for view in (batch, *beside)]).sum())


@dataclass(frozen=True)
class Rows:
    """This worker's share: `batches(start)`, of each step's batch from step `start` on, all of the same number of rows;
    `selection`, of the selection rows."""

    batches: Callable[[int], Iterator[Batch]]
    selection: Sequence[Batch]


def train(
    module: nn.Module,
    *,
    task: TaskLike,
    output: OutputSide,
    optim: Optim,
    seed: int,
    rows: Rows,
    collective: Collective,
    state: State | None = None,
    speaker: SpeakerLike | None = None,
) -> Iterator[Progress]:
    """Train `module` in place, reporting every `optim.evaluate_every` steps and after the last.

    `state`: of an earlier `Progress`, to go on from. `speaker`: for objectives that learn from the model's answers.
    When the generator ends or is closed, the module has the best reported weights with `optim.patience`, else the last;
    they are averaged ones with `optim.average`, and the module's parameters are its own again.

    Dropout of a step depends on (seed, step, rank) only: there is no random state to carry over a restart.
    Raises `Diverged`.
    """
    recalled = any(term.objective.recalls for term in output.terms)
    start = copy.deepcopy(module).requires_grad_(False).eval() if recalled else None
    with ExitStack() as stack:
        torch.manual_seed(seeding.integer(seed, "trainable"))  # the same on every worker
        moves = stack.enter_context(output.trainable(module))
        own = own_modules(module, output.terms, seed)
        stated = [term.weight for term in output.terms]
        terms = Terms(output.terms, output.weighting.weigher(stated, last_shared(module), collective))
        optimiser = Optimizer(module, optim, collective, moves, (*own.values(), terms.weigher.own))
        stack.enter_context(optimiser.in_place())
        step, stale, tokens, best = 0, 0, 0.0, None
        if state is not None:
            optimiser.resume(state["weights"], state["moments"])
            step, stale, tokens, best = state["step"], state["stale"], state["tokens"], state["best"]

        def snapshot() -> State:
            return {
                **{"step": step, "stale": stale, "tokens": tokens, "best": best},
                **{"weights": optimiser.weights(), "moments": optimiser.moments()},
            }

        stack.callback(lambda: optimiser.finish(best["weights"] if best else None))
        wrapped = collective.wrap(module)
        forward = ModelForward(module, wrapped, optim.precision, own, collective, start=start, speaker=speaker)
        tally, since = _Tally(), step
        module.train()
        forward.wrapped.train()
        for batch in rows.batches(step) if _goes_on(optim, step, stale) else ():
            began = time.perf_counter()
            torch.manual_seed(seeding.integer(seed, "dropout", step, collective.rank))
            batch = replace(batch, progress=step / optim.steps)
            _step_gradients(forward, batch, terms, task, optim.accumulate, tally)
            terms.weigher.settle()
            if not math.isfinite(optimiser.step(step)):  # the same on every worker, so that all of them stop here
                raise Diverged(f"the gradient is not finite at step {step + 1} (learning rate {optim.lr:g})")
            step += 1
            tally.seconds += time.perf_counter() - began
            if step % optim.evaluate_every and step < optim.steps:
                continue

            found = tally.total(collective)
            began = time.perf_counter()
            with optimiser.averaged():
                total = collective.sum(sums(forward, task, rows.selection))
            evaluated = time.perf_counter() - began
            scored = task.metrics(total)
            read = found.pop("tokens")
            tokens += read
            per_step = collective.world * (step - since)
            metrics = {
                **{f"train/{name}": value / per_step for name, value in found.items()},
                **{f"selection/{name}": value for name, value in scored.items()},
                **{f"train/{name}/weight": weight for name, weight in terms.weights().items()},
                **{"cost/steps": float(step), "cost/passes": step * terms.cost(), "cost/tokens": tokens},
                **{"time/tokens_per_s": read / tally.seconds, "time/evaluation_s": evaluated},
            }
            if wrong := [name for name, value in metrics.items() if not math.isfinite(value)]:
                raise Diverged(f"{wrong[0]} is not finite at step {step} (learning rate {optim.lr:g})")
            if optim.patience is not None:
                here = score(task, scored)
                stale += 1
                if best is None or here > tuple(best["score"]):
                    stale, best = 0, {"score": list(here), "weights": optimiser.result()}
            tally, since = _Tally(), step
            yield Progress(step=step, metrics=metrics, sums=total, state=snapshot)
            if not _goes_on(optim, step, stale):
                break


def _goes_on(optim: Optim, step: int, stale: int) -> bool:
    return step < optim.steps and (optim.patience is None or stale < optim.patience)
