"""The training loop: a generator of progress. Whoever iterates it decides whether to go on, and what to keep.

Its world is batches and a model: schedulers, trackers and files are the caller's.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bothways import seeding
from bothways.config import Optim, OutputSide, Term
from bothways.contracts import Batch, Collective, ObjectiveLike, Outputs, TaskLike
from bothways.joint.weightings import Weigher
from bothways.output_side.trainable import body, layers
from bothways.training import agreement
from bothways.training.optimizer import Optimizer

State = Mapping[str, Any]
Own = dict[ObjectiveLike, nn.Module]


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


class ModelForward:
    """`contracts.Forward` over a transformers model: `wrapped` synchronises gradients, `module` is the bare model.

    `own`: what objectives have beside the model. `collective`: the workers; None: this one alone.
    """

    def __init__(
        self,
        module: nn.Module,
        wrapped: nn.Module,
        precision: str,
        own: Own | None = None,
        collective: Collective | None = None,
    ) -> None:
        self.module = module
        self.wrapped = wrapped
        self._bf16 = precision == "bf16"
        self._own = own or {}
        self._collective = collective

    def __call__(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        return self.through(self.wrapped, batch, embeddings)

    def outputs(self, batch: Batch, embeddings: Tensor | None = None) -> Outputs:
        last = last_linear(self.module)
        with _input_of(last) as read:
            logits = self(batch, embeddings)
        return Outputs(logits, read[0].float(), last.weight)

    def own(self, objective: ObjectiveLike) -> nn.Module:
        return self._own[objective]

    def head(self, features: Tensor, *, frozen: bool = False) -> Tensor:
        last = last_linear(self.module)
        weights = {name: value.detach() if frozen else value for name, value in last.named_parameters()}
        logits: Tensor = torch.func.functional_call(last, weights, features)
        return logits

    def gather(self, rows: Tensor) -> Tensor:
        workers = self._collective
        if workers is None or workers.world == 1:
            return rows
        fixed = rows.detach()
        mine = np.s_[workers.rank :: workers.world]
        everyone = fixed.new_zeros(len(rows) * workers.world, *rows.shape[1:])
        everyone[mine] = fixed
        everyone = workers.sum(everyone)
        # The workers' gradients are averaged, and each has only its own rows': these count once for each worker.
        everyone[mine] = fixed + workers.world * (rows - fixed)
        return everyone

    def embed(self, batch: Batch) -> Tensor:
        embedding: nn.Module = self.module.get_input_embeddings()  # type: ignore[operator]
        looked_up: Tensor = embedding(batch.inputs["input_ids"])
        return looked_up

    def inner(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        return self.through(self.module, batch, embeddings)

    def agreement(self, batch: Batch, others: Batch, task: TaskLike, *, head: bool = False) -> Tensor:
        moving = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        if head:
            last = {id(value) for value in last_linear(self.module).parameters()}
            moving = {name: value for name, value in moving.items() if id(value) in last}
        slope = agreement.slope(self, others, task, moving, by_rows=not head)
        if self._collective is not None:
            slope = slope.mean_over(self._collective)
        return agreement.along(self, batch, task, slope)

    def vocabulary(self) -> Tensor:
        found: Tensor = self.module.get_input_embeddings().weight.detach()  # type: ignore[operator]
        return found

    def layers(self) -> nn.ModuleList:
        return layers(self.module)

    def parameters(self) -> Iterator[Tensor]:
        return (value for value in self.module.parameters() if value.requires_grad)

    def through(self, module: Callable[..., Any], batch: Batch, embeddings: Tensor | None) -> Tensor:
        """Logits of `module`, which is called as the model is."""
        inputs = dict(batch.inputs)
        if embeddings is not None:
            del inputs["input_ids"]
            inputs["inputs_embeds"] = embeddings
        with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=self._bf16):
            logits = _logits_of(module(**inputs))
        return logits.float()


def _logits_of(output: Any) -> Tensor:
    """The logits of a model's output; those of first and last tokens of answers, (N, T) each, as (N, 2, T)."""
    found: Tensor = output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], 1)
    return found


def last_linear(module: nn.Module) -> nn.Linear:
    """The layer that makes the logits: the model's last linear one."""
    return [part for part in module.modules() if isinstance(part, nn.Linear)][-1]


@contextmanager
def _input_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What `layer` reads while inside."""
    read: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        yield read
    finally:
        hook.remove()


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


def predictions(forward: ModelForward, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Tensor]]:
    """Every batch with its logits (N, C), in evaluation mode. The model is in training mode again afterwards."""
    forward.module.eval()
    try:
        for batch in batches:
            with torch.no_grad():
                logits = forward.inner(batch)
            yield batch, logits
    finally:
        forward.module.train()


def no_sums(task: TaskLike, classes: int) -> Tensor:
    """The task's sums over no rows: what a worker without rows contributes."""
    return torch.zeros(task.width(classes), dtype=torch.float64)


def evaluate(forward: ModelForward, task: TaskLike, batches: Sequence[Batch], collective: Collective) -> Tensor:
    """The task's sums over all workers' batches."""
    total = no_sums(task, int(forward.module.config.num_labels))  # type: ignore[union-attr, arg-type]
    for batch, logits in predictions(forward, batches):
        total = total + task.sums(logits, batch)
    return collective.sum(total)


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


def train(
    module: nn.Module,
    *,
    task: TaskLike,
    output: OutputSide,
    optim: Optim,
    seed: int,
    batches: Callable[[int], Iterator[Batch]],
    selection: Sequence[Batch],
    collective: Collective,
    state: State | None = None,
) -> Iterator[Progress]:
    """Train `module` in place, reporting every `optim.evaluate_every` steps and after the last.

    `batches(start)`: this worker's share of each step's batch from step `start` on, all of the same number of rows.
    `selection`: this worker's share of the selection rows. `state`: of an earlier `Progress`, to go on from.
    When the generator ends or is closed, the module has the best reported weights with `optim.patience`, else the last;
    they are averaged ones with `optim.average`, and the module's parameters are its own again.

    Dropout of a step depends on (seed, step, rank) only: there is no random state to carry over a restart.
    Raises `Diverged`.
    """
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
        forward = ModelForward(module, collective.wrap(module), optim.precision, own, collective)
        tally, since = _Tally(), step
        module.train()
        forward.wrapped.train()
        for batch in batches(step) if _goes_on(optim, step, stale) else ():
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
                sums = evaluate(forward, task, selection, collective)
            evaluated = time.perf_counter() - began
            scored = task.metrics(sums)
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
            yield Progress(step=step, metrics=metrics, sums=sums, state=snapshot)
            if not _goes_on(optim, step, stale):
                break


def _goes_on(optim: Optim, step: int, stale: int) -> bool:
    return step < optim.steps and (optim.patience is None or stale < optim.patience)
