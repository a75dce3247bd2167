"""Rung 0 through Ray and Optuna: candidate input sides drawn from the space, judged by control models in two tasks.

What judges best begins the search, after the control; nothing is ruled out by it. See `screening` for the rule.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray

from bothways import policy, spaces
from bothways.assets.files import write_whole
from bothways.config import Experiment, InputSide, Run, Search
from bothways.data import Dataset
from bothways.edges.ray_cluster import gpus_per_worker
from bothways.errors import UserError
from bothways.policy import screening
from bothways.policy.screening import Score

SHARE = 8
"""One in so many of the search's trials begins with a screened input side."""


@dataclass(frozen=True, kw_only=True)
class Screened:
    """`points`: input knobs to begin with, best first. `steps`: optimiser steps it took. `table`: every score."""

    points: Sequence[dict[str, Any]]
    steps: int
    table: str


def check(search: Search, space: spaces.Space) -> None:
    """Raises `UserError` when there is nothing to screen."""
    if search.screen and not any(knob.path.startswith("input.") for knob in space.knobs):
        raise UserError(
            f"search.screen {search.screen} judges input sides, and {space.name} has no knob below `input.`"
        )


def screen(
    search: Search, space: spaces.Space, base: Experiment, *, dataset: Dataset, directory: Path, run: Run
) -> Screened:
    """Judge `search.screen` input sides. What an earlier process of this sweep has found is read from its file."""
    file = directory / "screen.json"
    if file.exists():
        return Screened(**json.loads(file.read_text("utf-8")))
    points = candidates(search, space, base)
    models = controls(space, base, dataset=dataset, directory=directory, run=run)
    sides = [spaces.apply(base, point).input for point in points]
    scores = _scores(sides, _halves(space, base), models, dataset, run)
    first = screening.chosen(scores, max(1, search.trials // SHARE))
    found = Screened(
        points=[points[i] for i in first],
        steps=screening.HALVES * base.optim.steps,
        table=screening.table(points, scores, first),
    )
    (directory / "screen.tsv").write_text(found.table, encoding="utf-8")
    write_whole(file, json.dumps(vars(found)))
    return found


def candidates(search: Search, space: spaces.Space, base: Experiment) -> list[dict[str, Any]]:
    """The input parts of points drawn at random, all different; as many as there are, up to `search.screen`."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=search.seed))
    found: dict[str, dict[str, Any]] = {}
    for _ in range(10 * search.screen):
        point = screening.input_part(spaces.suggest(study.ask(), space))
        side = spaces.apply(base, point).input
        if policy.augments(side):
            found.setdefault(json.dumps(point, sort_keys=True), point)
        if len(found) == search.screen:
            break
    return list(found.values())


def controls(space: spaces.Space, base: Experiment, *, dataset: Dataset, directory: Path, run: Run) -> list[str]:
    """The directories of the control models, each trained once a sweep on the rows that the other one judges."""
    file = directory / "controls.json"
    if file.exists():
        return list(json.loads(file.read_text("utf-8")))
    held = ray.put(dataset)
    task = ray.remote(num_cpus=run.cpus_per_worker, num_gpus=gpus_per_worker(run))(_train)
    found: list[str] = ray.get(
        [task.remote(half.spec(), held, directory / "screen", run) for half in _halves(space, base)]
    )
    write_whole(file, json.dumps(found))
    return found


def _halves(space: spaces.Space, base: Experiment) -> list[Experiment]:
    from bothways.training.cross_validation import experiments  # only now: torch, whom a sweep without screen is spared

    return experiments(spaces.apply(base, space.first_points(base)[0]), screening.HALVES)


def _train(spec: dict[str, Any], dataset: Dataset, directory: Path, run: Run) -> str:
    """Train the control of `spec` on one half of the rows."""
    from bothways.edges import local  # in the worker only: torch and all that

    experiment = Experiment(**spec)
    assert experiment.data.fold is not None
    name = f"control-{experiment.data.fold.number}"
    trained = local.run(experiment, run, trial_id=name, directory=directory / name, dataset=_half(experiment, dataset))
    if trained.status != "finished":
        raise UserError(f"the control could not be trained on half of the rows: {trained.error}")
    return trained.model_dir


def _half(experiment: Experiment, dataset: Dataset) -> Dataset:
    from bothways import data

    assert experiment.data.fold is not None
    return data.folded(dataset, experiment.data.fold, experiment.data.split_seed)


def _scores(
    sides: Sequence[InputSide], halves: Sequence[Experiment], models: Sequence[str], dataset: Dataset, run: Run
) -> list[Score]:
    held = ray.put(dataset)
    task = ray.remote(num_cpus=run.cpus_per_worker, num_gpus=gpus_per_worker(run))(_judge)
    plain = [side.model_dump(mode="json") for side in sides]
    found: list[list[Score]] = ray.get(
        [task.remote(half.spec(), held, plain, model, run) for half, model in zip(halves, models, strict=True)]
    )
    return [screening.together(scores) for scores in zip(*found, strict=True)]


def _judge(
    spec: dict[str, Any], dataset: Dataset, sides: Sequence[dict[str, Any]], model: str, run: Run
) -> list[Score]:
    """Have a control model judge the sides on the rows that it has not learnt."""
    import torch

    from bothways.edges import local
    from bothways.policy.judges import probabilities
    from bothways.predict import Predictor

    torch.set_num_threads(run.threads)
    experiment = Experiment(**spec)
    rows = _half(experiment, dataset)
    predictor = Predictor(model, local.device(run))
    return [
        screening.judge(
            InputSide(**side), experiment, rows.train, rows.selection, lambda table: probabilities(predictor, table)
        )
        for side in sides
    ]
