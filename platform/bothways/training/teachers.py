"""Saved models that teach: their predictions for every batch of training, as objectives name them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bothways import models
from bothways.config import Experiment
from bothways.contracts import Batch, Teacher
from bothways.errors import UserError
from bothways.models.pretrained import places
from bothways.output_side.teacher import content
from bothways.tokenization import tokenizer
from bothways.training import ModelForward

Remember = Callable[[Hashable, Callable[[], Any]], Any]


class Teaching:
    """`batch` → `batch` with what each teacher of the experiment says about its rows (`Batch.taught`).

    `student`, `labels`, `paired`: who is taught what. `remember`: keeps a loaded teacher for later trials.
    Raises `UserError` when a teacher has changed since the experiment was made, or cannot teach this student.
    """

    def __init__(
        self, experiment: Experiment, student: models.Bundle, labels: tuple[str, ...], paired: bool, remember: Remember
    ) -> None:
        self._teachers: dict[Teacher, tuple[ModelForward, Tensor]] = {}
        device = next(student.module.parameters()).device
        for named in dict.fromkeys(one for term in experiment.output.terms for one in term.objective.taught_by):
            bundle, about = remember(("teacher", named, str(device)), partial(_load, named, device))
            _check(named, bundle, about, experiment, student, labels, paired)
            order = torch.tensor([about.labels.index(label) for label in labels], device=device)
            self._teachers[named] = (ModelForward(bundle.module, bundle.module, experiment.optim.precision), order)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        if not self._teachers:
            return batch
        said = {named: forward.inner(batch)[:, order] for named, (forward, order) in self._teachers.items()}
        return replace(batch, taught=said)


def _load(named: Teacher, device: torch.device) -> tuple[models.Bundle, models.About]:
    found = content(named.directory)
    if found != named.digest:
        raise UserError(
            f"teacher {named.directory} has changed since the experiment was made ({named.digest}, now {found}): "
            "leave `digests` out to take it as it is now"
        )
    bundle, about = models.load_saved(Path(named.directory).expanduser(), device)
    bundle.module.eval()
    return bundle, about


def _check(
    named: Teacher,
    teacher: models.Bundle,
    about: models.About,
    experiment: Experiment,
    student: models.Bundle,
    labels: tuple[str, ...],
    paired: bool,
) -> None:
    longest = places(teacher.module)
    problem = None
    if _reading(teacher, paired) != _reading(student, paired):
        problem = f"has another tokenizer than {experiment.model.source}: choose a student of the same vocabulary"
    elif sorted(about.labels) != sorted(labels):
        problem = f"knows the labels {', '.join(about.labels)}, the data have {', '.join(labels)}"
    elif about.paired != paired:
        problem = f"reads {'pairs of texts' if about.paired else 'single texts'}, the data have the other"
    elif longest is not None and experiment.model.max_length > longest:
        problem = f"reads at most {longest} tokens: lower model.max_length ({experiment.model.max_length})"
    if problem:
        raise UserError(f"teacher {named.directory} {problem}")


def _reading(bundle: models.Bundle, paired: bool) -> tuple[Any, bool]:
    """All that decides which ids a text becomes."""
    found = tokenizer(bundle.path, bundle.vocabulary)
    parts = json.loads(found.backend_tokenizer.to_str())
    typed = paired and "token_type_ids" in found.model_input_names
    return {key: part for key, part in parts.items() if key not in ("truncation", "padding")}, typed
