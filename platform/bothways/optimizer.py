"""AdamW with everything a step of fine-tuning does to gradients: clipping, schedule, groups, rows of the embedding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from bothways.config import Optim
from bothways.contracts import Collective
from bothways.embedding_rows import EmbeddingRows
from bothways.output_side.trainable import head_parameters

BETAS, EPS = (0.9, 0.999), 1e-8
ROWS = "embedding rows"
"""The key of the embedding's rows among the weights of a state."""

Weights = Mapping[str, Any]


def learning_rate(optim: Optim, step: int) -> float:
    """The rate of optimiser step `step` (from 0): linear warm-up to `optim.lr`, then the schedule. Never 0."""
    warm = round(optim.warmup * optim.steps)
    if step < warm:
        return optim.lr * (step + 1) / warm
    done = (step - warm) / max(1, optim.steps - warm)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[optim.schedule]
    return optim.lr * factor


def parameter_groups(module: nn.Module, moving: Iterable[nn.Parameter], optim: Optim) -> list[dict[str, Any]]:
    """`moving` by weight decay and learning rate; a group's `scale` is its rate as a multiple of `optim.lr`.

    Only matrices decay, and embeddings do not: a row of an embedding whose token never occurs then stays at its
    pretrained value exactly, and neither training (`EmbeddingRows`) nor a saved model need touch it.
    """
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    new = {id(value) for value in head_parameters(module)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for value in moving:
        decay = optim.weight_decay if value.dim() > 1 and id(value) not in embeddings else 0.0
        scale = (optim.head_lr or optim.lr) / optim.lr if id(value) in new else 1.0
        groups.setdefault((decay, scale), []).append(value)
    return [{"params": found, "weight_decay": decay, "scale": scale} for (decay, scale), found in groups.items()]


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019) over the parameters of `module` that may move, and those of `own` beside it.

    The latter are new, as a head is: they have its rate. No DDP knows them: `step` averages their gradients.
    """

    def __init__(
        self, module: nn.Module, optim: Optim, collective: Collective, own: tuple[nn.Module, ...] = ()
    ) -> None:
        self._optim = optim
        self._collective = collective
        self._rows = EmbeddingRows.of(module)
        by_rows = module.get_input_embeddings().weight if self._rows else None  # type: ignore[operator]
        self._moving = {
            name: value for name, value in module.named_parameters() if value.requires_grad and value is not by_rows
        }
        groups = parameter_groups(module, self._moving.values(), optim)
        self._own = {f"own {n}.{name}": value for n, part in enumerate(own) for name, value in part.named_parameters()}
        self._moving |= self._own
        new = {"scale": (optim.head_lr or optim.lr) / optim.lr}
        for matrices, decay in ((True, optim.weight_decay), (False, 0.0)):
            found = [value for value in self._own.values() if (value.dim() > 1) == matrices]
            groups += [{"params": found, "weight_decay": decay, **new}] if found else []
        self._adamw = torch.optim.AdamW(groups, lr=optim.lr, betas=BETAS, eps=EPS, fused=True)

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
            self._adamw.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, number: int) -> float:
        """Clip the gradients and take optimiser step `number` (from 0). Returns their norm before.

        A norm that is not finite changes nothing; it is the same on every worker.
        """
        rate = learning_rate(self._optim, number)
        if self._collective.world > 1:
            for value in filter(lambda one: one.requires_grad, self._own.values()):
                value.grad = self._collective.sum(torch.zeros_like(value) if value.grad is None else value.grad)
                value.grad /= self._collective.world
        parameters = list(self._moving.values())
        if self._rows is not None:
            self._rows.gather(self._collective)
            parameters.append(self._rows.values)
        norm = float(nn.utils.clip_grad_norm_(parameters, self._optim.clip_norm or math.inf))
        if math.isfinite(norm):
            for group in self._adamw.param_groups:
                group["lr"] = rate * group["scale"]
            self._adamw.step()
            if self._rows is not None:
                self._step_rows(self._rows, rate, number)
        self._adamw.zero_grad(set_to_none=True)
        return norm

    @staticmethod
    def _step_rows(rows: EmbeddingRows, rate: float, number: int) -> None:
        assert rows.values.grad is not None
        first, second = rows.moments
        adamw(
            [rows.values],
            [rows.values.grad],
            [first],
            [second],
            [],
            [torch.tensor(float(number))],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )
        rows.scatter()

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

    def moments(self) -> Mapping[str, Any]:
        """AdamW's state, as `resume` takes it."""
        return {"adamw": self._adamw.state_dict(), "rows": list(self._rows.moments) if self._rows else []}

    def resume(self, weights: Weights, moments: Mapping[str, Any]) -> None:
        """Go on from the `weights()` and `moments()` of an optimiser like this one."""
        self.restore(weights)
        self._adamw.load_state_dict(moments["adamw"])
        if self._rows is not None:
            first, second = (moment.clone() for moment in moments["rows"])
            self._rows.moments = (first, second)
