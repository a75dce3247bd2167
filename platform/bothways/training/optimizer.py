"""What a step of fine-tuning does to gradients: clipping, schedule, groups, rows of the embedding, torch's step."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bothways.config import Optim
from bothways.contracts import Collective, Move
from bothways.models.embedding_rows import EmbeddingRows, grown
from bothways.output_side.trainable import head_parameters
from bothways.training.averaging import Average

BETAS, EPS = (0.9, 0.999), 1e-8
ROWS = "embedding rows"
"""The key of the embedding's rows among the weights of a state."""
WHOLE = frozenset({"adafactor"})
"""Algorithms whose update of an element depends on others of its matrix: they need the embedding whole."""

Weights = Mapping[str, Any]


def learning_rate(optim: Optim, step: int) -> float:
    """The rate of optimiser step `step` (from 0): linear warm-up to `optim.lr`, then the schedule. Never 0."""
    warm = round(optim.warmup * optim.steps)
    if step < warm:
        return optim.lr * (step + 1) / warm
    since = step - warm
    done = since / max(1, optim.steps - warm)
    factors: dict[str, float] = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "inverse_sqrt": (1 + since / max(1, warm)) ** -0.5,
    }
    return optim.lr * factors[optim.schedule]


def parameter_groups(
    module: nn.Module, moving: Mapping[str, nn.Parameter], optim: Optim, moves: Mapping[str, Move]
) -> list[dict[str, Any]]:
    """`moving`, by name, as torch's parameter groups. `scale`: a group's rate as a multiple of `optim.lr`; `since`: the
    first step that moves it.

    Only matrices decay, and embeddings do not: a row of an embedding whose token never occurs then stays at its
    pretrained value exactly, and neither training (`EmbeddingRows`) nor a saved model need touch it.
    """
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    new = {id(value) for value in head_parameters(module)}
    groups: dict[tuple[float, float, int], list[nn.Parameter]] = {}
    for name, value in moving.items():
        decay = optim.weight_decay if value.dim() > 1 and id(value) not in embeddings else 0.0
        rate = (optim.head_lr or optim.lr) / optim.lr if id(value) in new else 1.0
        groups.setdefault((decay, rate * moves[name].rate, moves[name].since), []).append(value)
    return [
        {"params": found, "weight_decay": decay, "scale": scale, "since": since}
        for (decay, scale, since), found in groups.items()
    ]


def _algorithm(optim: Optim, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if optim.algorithm == "nadam":
        return torch.optim.NAdam(groups, lr=optim.lr, betas=BETAS, eps=EPS, decoupled_weight_decay=True)
    if optim.algorithm == "radam":
        return torch.optim.RAdam(groups, lr=optim.lr, betas=BETAS, eps=EPS, decoupled_weight_decay=True)
    if optim.algorithm == "adafactor":
        return torch.optim.Adafactor(groups, lr=optim.lr)
    if optim.algorithm == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=BETAS, eps=EPS, fused=True)


class Optimizer:
    """`optim.algorithm` over the parameters of `module` that `moves` names, each as it says, and those of `own` beside.

    The latter are new, as a head is: they have its rate. No DDP knows them: `step` averages their gradients.
    `rowwise`: look-ups in the input embedding note their gradients themselves (`EmbeddingRows`).
    AdamW: Loshchilov & Hutter 2019; NAdam: Dozat 2016; RAdam: Liu et al. 2020; Adafactor: Shazeer & Stern 2018.
    """

    def __init__(
        self,
        module: nn.Module,
        optim: Optim,
        collective: Collective,
        moves: Mapping[str, Move],
        own: tuple[nn.Module, ...] = (),
        rowwise: bool = True,
    ) -> None:
        self._optim = optim
        self._collective = collective
        self._rows = EmbeddingRows.of(module) if rowwise and optim.algorithm not in WHOLE else None
        by_rows = module.get_input_embeddings().weight if self._rows else None  # type: ignore[operator]
        named = dict(module.named_parameters())
        self._moving = {name: named[name] for name in moves if named[name] is not by_rows}
        groups = parameter_groups(module, self._moving, optim, moves)
        if self._rows is not None:
            move = next(moves[name] for name, value in named.items() if value is by_rows)
            rows = {"params": [self._rows.values], "weight_decay": 0.0, "scale": move.rate, "since": move.since}
            groups.append(rows)
            self._rows_since = move.since
        self._own = {f"own {n}.{name}": value for n, part in enumerate(own) for name, value in part.named_parameters()}
        self._moving |= self._own
        new = {"scale": (optim.head_lr or optim.lr) / optim.lr, "since": 0}
        for matrices, decay in ((True, optim.weight_decay), (False, 0.0)):
            found = [value for value in self._own.values() if (value.dim() > 1) == matrices]
            groups += [{"params": found, "weight_decay": decay, **new}] if found else []
        self._torch = _algorithm(optim, groups)
        self._average = Average(optim.ema_decay, self._tensors()) if optim.average else None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While inside, backward passes may be made for `step`; DDP has to be made inside."""
        try:
            if self._rows is None:
                yield
            else:
                with self._rows.in_place():
                    yield
        finally:
            self._torch.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, number: int) -> float:
        """Clip the gradients and take optimiser step `number` (from 0). Returns their norm before.

        What does not move yet has no gradient. A norm that is not finite changes nothing; it is the same on every
        worker.
        """
        rate = learning_rate(self._optim, number)
        if self._collective.world > 1:
            for value in filter(lambda one: one.requires_grad, self._own.values()):
                value.grad = self._collective.sum(torch.zeros_like(value) if value.grad is None else value.grad)
                value.grad /= self._collective.world
        for group in self._torch.param_groups:
            group["lr"] = rate * group["scale"]
            if number < group["since"]:
                for value in group["params"]:
                    value.grad = None
        moves_rows = self._rows is not None and number >= self._rows_since
        if self._rows is not None:
            self._gather(self._rows) if moves_rows else self._rows.forget()
        every = [*self._moving.values(), *([self._rows.values] if self._rows else [])]
        norm = float(nn.utils.clip_grad_norm_(every, self._optim.clip_norm or math.inf))
        if math.isfinite(norm):
            self._torch.step()
            if self._rows is not None and moves_rows:
                self._rows.scatter()
            if self._average is not None:
                self._average.update(number + 1, self._tensors(), self._rows.start if self._rows else None)
        self._torch.zero_grad(set_to_none=True)
        return norm

    def _gather(self, rows: EmbeddingRows) -> None:
        """The gradient of the embedding's rows; those that are new have moments of zero."""
        rows.gather(self._collective)
        state = self._torch.state.get(rows.values, {})
        for name, moment in state.items():
            if moment is not None and moment.dim() == 2:
                state[name] = grown(moment, len(rows.start))

    def _tensors(self) -> dict[str, Tensor]:
        """All that moves, as it is."""
        plain: dict[str, Tensor] = {name: value.detach() for name, value in self._moving.items()}
        return plain | ({ROWS: self._rows.values.detach()} if self._rows else {})

    def weights(self) -> Weights:
        """A copy of all that moves, as `restore` takes it."""
        plain: dict[str, Any] = {name: value.detach().cpu().clone() for name, value in self._moving.items()}
        return plain | ({ROWS: self._rows.weights()} if self._rows else {})

    def restore(self, weights: Weights) -> None:
        """Set the module to earlier `weights`."""
        with torch.no_grad():
            for name, target in self._moving.items():
                target.copy_(weights[name])
            if self._rows is not None:
                self._rows.restore(weights[ROWS])

    def result(self) -> Weights:
        """A copy of what is evaluated and kept: the averaged weights, or the last ones where nothing is averaged."""
        if self._average is None:
            return self.weights()
        values: dict[str, Any] = {name: value.cpu().clone() for name, value in self._average.values.items()}
        if self._rows is not None:  # those that a step has just brought in are averaged if it is taken
            values[ROWS] = {"ids": self._rows.ids[: len(values[ROWS])].clone(), "values": values[ROWS]}
        return values

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While inside, the module has its `result`."""
        if self._average is None:
            yield
            return
        last = self.weights()
        self.restore(self.result())
        try:
            yield
        finally:
            self.restore(last)

    def finish(self, best: Weights | None) -> None:
        """Set the module to what training has come to: the `best` weights, or its `result`."""
        if best is not None or self._average is not None:
            self.restore(best or self.result())

    def moments(self) -> Mapping[str, Any]:
        """The algorithm's state and the averages, as `resume` takes them."""
        return {"algorithm": self._torch.state_dict(), "average": self._average.values if self._average else {}}

    def resume(self, weights: Weights, moments: Mapping[str, Any]) -> None:
        """Go on from the `weights()` and `moments()` of an optimiser like this one."""
        self.restore(weights)
        self._torch.load_state_dict(copy.deepcopy(moments["algorithm"]))
        if self._average is not None:
            self._average.resume(moments["average"])
