"""How parameters move: the optimiser, its schedule, and what is looked at on the way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bothways.config.strict import Config, Count, Probability


class Optim(Config):
    """`algorithm`: torch's of that name, weight decay decoupled from the gradient where it has the choice. Budgets are
    optimiser steps; `batch_size` is rows per step over all workers. `lr` of adafactor is relative to the size of a
    weight: some 1e-2 instead of 1e-4.

    `head_lr`: peak rate of the new head (null: `lr`); ten times `lr` gets few-label runs off the plateau on which a
    random head leaves them. `warmup`: share of the steps. `accumulate`: forward passes a step is cut into (memory, not
    mathematics). `momentum`: of sgd. `sampling`: `balanced` shows every class equally often, and every row of a class
    as often as any other of it.
    `average`: `ema` evaluates and keeps an exponential moving average of the weights; after step t its decay is
    `ema_decay`, but at most (1 + t) / (10 + t).
    `evaluate_every`: steps between reports on the selection rows. `patience`: reports without a better selection
    metric before stopping (the best weights are restored); null trains to the end and keeps the last weights.
    `precision`: of forward and backward passes; weights and what moves them stay fp32. `auto` is bf16 where the device
    multiplies it (CPUs with AVX512-BF16 or AMX, GPUs since Ampere), at up to twice the speed, and fp32 elsewhere, so
    that results differ between machines by more than the last bits.
    """

    steps: Count = 200
    batch_size: Count = 16
    sampling: Literal["natural", "balanced"] = "natural"
    algorithm: Literal["adamw", "nadam", "radam", "adafactor", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    lr: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-4
    head_lr: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup: Probability = 0.1
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "linear"
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    accumulate: Count = 1
    evaluate_every: Count = 20
    patience: Count | None = None
    average: Literal["ema"] | None = None
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
