"""What a trial's training starts from: the base weights, and what `model.prepare` has made of them.

A result follows from source, vocabulary, texts, knobs, seed, place in the list and kind of device, and is kept on disk
under these (see `prepared_weights`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from bothways import assets, seeding
from bothways.config import Experiment
from bothways.contracts import Collective
from bothways.data import Dataset
from bothways.input_side.preparation import Preparation
from bothways.models import Bundle
from bothways.models.language_models import Checkpoint, save
from bothways.pretraining import Corpus, Record, Tell, counts, learn
from bothways.pretraining.prepared_weights import digest_of, kept
from bothways.registry import PREPARATIONS
from bothways.tokenization import Vocabulary, tokenizer, used

FORMAT = 1
LANGUAGE_MODEL = "continued_pretraining"
"""The preparation that makes one."""
SAY_S = 10.0

Weights = Mapping[str, Tensor]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """`weights`: what training starts from, by name in the bundle. `records`: one a preparation, in order."""

    weights: Weights
    records: tuple[Record, ...]

    def metrics(self) -> dict[str, float]:
        """For a trial's first report. Time is what the work took when it was done, also where it was done before."""
        losses = {
            f"prepare/{number}/{name}": getattr(record, name)
            for number, record in enumerate(self.records)
            for name in ("first", "last", "told")
            if name != "told" or record.told
        }
        return {
            "cost/prepare_steps": float(sum(record.steps for record in self.records)),
            "time/prepare_s": sum(record.seconds for record in self.records),
            **losses,
        }


class Memory:
    """`prepared`, which here remembers the last result."""

    def __init__(self) -> None:
        self._last: tuple[Hashable, Prepared | None] = None, None

    def __call__(
        self, experiment: Experiment, dataset: Dataset, bundle: Bundle, collective: Collective, say: Say | None
    ) -> Prepared | None:
        if not experiment.model.prepare:
            return None
        key = (experiment.seed, dataset.digest, experiment.model.model_dump_json())
        if key != self._last[0]:
            self._last = key, prepared(experiment, dataset, bundle, collective, say)
        return self._last[1]


def prepared(
    experiment: Experiment, dataset: Dataset, bundle: Bundle, collective: Collective, say: Say | None = None
) -> Prepared | None:
    """What `experiment.model.prepare` makes of the bundle's base; None when it asks for nothing.

    The first worker computes it, or finds it on disk, and the others receive it. `say`: hears every `SAY_S` seconds how
    far it is. Raises `UserError`.
    """
    stages = [stage for stage in experiment.model.prepare if stage.steps]
    if not stages:
        return None
    found = None
    if collective.rank == 0:
        model = experiment.model
        corpus = Corpus.of(dataset, bundle.path, bundle.vocabulary, model.max_length)
        found = _chain(stages, corpus, experiment, bundle, say)
    return found if collective.world == 1 else _shared(found, stages, bundle, collective)


def _chain(
    stages: Sequence[Preparation], corpus: Corpus, experiment: Experiment, bundle: Bundle, say: Say | None
) -> Prepared:
    """Every stage on top of the one before it, each from the disk where it is known."""
    device = next(bundle.module.parameters()).device
    prefix = f"{bundle.module.base_model_prefix}."
    identity: list[Any] = [FORMAT, digest_of(bundle.path), device.type, experiment.model.max_length]
    identity += [experiment.seed, corpus.digest, bundle.vocabulary and bundle.vocabulary.packed.hex()]
    weights: dict[str, Tensor] = {}
    records: list[Record] = []
    for stage in stages:
        identity.append(stage.spec())
        checkpoint = Checkpoint(
            name=experiment.model.source,
            path=bundle.path,
            vocabulary=bundle.vocabulary,
            device=device,
            seed=seeding.integer(experiment.seed, "prepare", len(records)),
            counts=counts(corpus, len(tokenizer(bundle.path, bundle.vocabulary))),
            start={name.removeprefix(prefix): value for name, value in weights.items()},
        )
        known = [name.removeprefix(prefix) for name in bundle.base if name.startswith(prefix)]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        body, record = kept(key, functools.partial(_made, stage, checkpoint, corpus, known, say))
        weights |= {f"{prefix}{name}": value for name, value in body.items()}
        records.append(record)
    return Prepared(weights=weights, records=tuple(records))


def _made(
    stage: Preparation, checkpoint: Checkpoint, corpus: Corpus, known: Sequence[str], say: Say | None
) -> tuple[Weights, Record]:
    """The weights of the body, those of `known` names, after a stage."""
    learner = stage.learner(checkpoint)
    record = learn(stage, learner, checkpoint, corpus, say and _now_and_then(stage, say))
    state = learner.body.state_dict()
    return {name: state[name].detach().cpu().contiguous().clone() for name in known if name in state}, record


def _now_and_then(stage: Preparation, say: Say) -> Tell:
    heard = time.monotonic()

    def tell(step: int, _loss: float) -> None:
        nonlocal heard
        if time.monotonic() - heard >= SAY_S:
            heard = time.monotonic()
            say(f"{stage.name}: step {step} of {stage.steps}")

    return tell


def _shared(found: Prepared | None, stages: Sequence[Preparation], bundle: Bundle, collective: Collective) -> Prepared:
    """The first worker's result, on every one: a sum to which the others add nothing."""
    prefix = f"{bundle.module.base_model_prefix}."
    weights = {}
    for name in sorted(name for name in bundle.base if name.startswith(prefix)):
        mine = torch.zeros_like(bundle.base[name])
        if found is not None:
            mine = found.weights.get(name, bundle.base[name])
        weights[name] = collective.sum(mine)
    table = torch.zeros(len(stages), len(fields(Record)), dtype=torch.float64)
    if found is not None:
        table = torch.tensor([list(asdict(record).values()) for record in found.records], dtype=torch.float64)
    rows = collective.sum(table).tolist()
    return Prepared(weights=weights, records=tuple(Record(**_as_record(row)) for row in rows))


def _as_record(row: Sequence[float]) -> dict[str, Any]:
    values: dict[str, Any] = dict(zip((field.name for field in fields(Record)), row, strict=True))
    return values | {"steps": int(values["steps"])}


def kept_stage(experiment: Experiment, asked: Mapping[str, Any]) -> Preparation:
    """The continued pretraining whose language model is kept: the experiment's own, if it has one, with what is `asked`
    otherwise (None: nothing)."""
    own = [stage.spec() for stage in experiment.model.prepare if stage.name == LANGUAGE_MODEL]
    spec = own[-1] if own else {"name": LANGUAGE_MODEL}
    found: Preparation = PREPARATIONS.build({**spec, **{k: v for k, v in asked.items() if v is not None}})
    return found


def language_model(
    experiment: Experiment, dataset: Dataset, stage: Preparation, device: torch.device, directory: Path, tell: Tell
) -> Record:
    """Train the language model of the experiment's source on the data's texts and write it to `directory`, with its
    head: masked for an encoder, causal for a decoder. Raises `UserError`."""
    model = experiment.model
    path, cut = str(assets.resolve(model.source)), vocabulary(experiment, dataset)
    corpus = Corpus.of(dataset, path, cut, model.max_length)
    checkpoint = Checkpoint(
        name=model.source,
        path=path,
        vocabulary=cut,
        device=device,
        seed=seeding.integer(experiment.seed, "prepare", 0),
        counts=counts(corpus, len(tokenizer(path, cut))),
        start={},
    )
    learner = stage.learner(checkpoint)
    record = learn(stage, learner, checkpoint, corpus, tell)
    save(learner.module, checkpoint, directory)
    return record


def vocabulary(experiment: Experiment, dataset: Dataset) -> Vocabulary | None:
    """What is kept of the model's vocabulary; None for all of it. The same for every fold of the data."""
    if experiment.model.vocabulary == "whole":
        return None
    read = ("train", "selection", "unlabelled", "mixed", "clean", "auxiliary", "feedback")
    columns = [dataset.rows(part)[name] for part in read for name in ("text", "pair")]
    if experiment.task.writes:
        columns += [dataset.rows(part)["label"].cast(pa.string()) for part in read]
    return used(tokenizer(str(assets.resolve(experiment.model.source))).backend_tokenizer, columns)
