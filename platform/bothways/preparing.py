"""What a trial's training starts from: the base weights, and what `model.prepare` has made of them.

A result is kept on disk by what it follows from (source, vocabulary, texts, knobs, seed, place in the list, kind of
device), so that it is computed once: by one process of a machine, for all of them, and for every later trial. Those used
last stay, up to `KEPT_BYTES`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch
from torch import Tensor, nn

from bothways import assets, batching, seeding
from bothways.assets.files import build_once, sha256
from bothways.checkpoints import need_space
from bothways.config import Augment, Experiment, Optim
from bothways.contracts import Collective
from bothways.data import Dataset
from bothways.errors import UserError
from bothways.input_side.preparation import Learner, Preparation, TokenBatch
from bothways.language_models import Checkpoint, save
from bothways.models import Bundle
from bothways.optimizer import BETAS, EPS, learning_rate
from bothways.tokenization import Vocabulary, encoder, tokenizer, used

FORMAT = 1
KEPT_BYTES = 8 << 30
HELD_OUT, HELD_OUT_SHARE = 256, 0.05
"""Texts that are not learnt from and say how well the others were: so many, or the smaller share."""
WARMUP, WEIGHT_DECAY, CLIP_NORM = 0.05, 0.01, 1.0
_WEIGHTS, _ABOUT = "weights.safetensors", "about.json"

Weights = Mapping[str, Tensor]
Tell = Callable[[int, float], None]
"""Hears of a step (from 1) and the loss of its batch."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a preparation took and gave. `first`, `last`: mean loss on held-out texts before and after, in nats.

    `top1`, `top5`: how often the right answer is the likeliest, or among the five likeliest, after.
    """

    steps: int
    seconds: float
    first: float
    last: float
    top1: float
    top5: float


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
            for name in ("first", "last")
        }
        return {
            "cost/prepare_steps": float(sum(record.steps for record in self.records)),
            "time/prepare_s": sum(record.seconds for record in self.records),
            **losses,
        }


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Encoded texts: `ids` to learn from, `held_out`, and `digest` of all of them."""

    ids: pa.ListArray
    held_out: pa.ListArray
    digest: str

    @classmethod
    def of(cls, dataset: Dataset, path: str, kept: Vocabulary | None, max_length: int) -> Corpus:
        """Raises `UserError` when there are fewer than two texts."""
        found = texts(dataset)
        if len(found) < 2:
            raise UserError(f"model.prepare learns from the data's texts, and there are only {len(found)}")
        order = seeding.permutation(len(found), "held out")
        count = min(HELD_OUT, max(1, int(HELD_OUT_SHARE * len(found))))
        ids = encoder(path, kept)(max_length, pa.chunked_array([pa.array(found, pa.string())])).ids
        return cls(
            ids=ids.take(pa.array(np.sort(order[count:]))),
            held_out=ids.take(pa.array(np.sort(order[:count]))),
            digest=hashlib.sha256("\0".join(found).encode()).hexdigest(),
        )


def texts(dataset: Dataset) -> list[str]:
    """Every text of the training rows, pairs too, and of the unlabelled ones, once, in the order of their characters;
    none that a selection or test row has."""

    def those_of(*tables: pa.Table) -> set[str]:
        columns = (table[name].to_pylist() for table in tables for name in ("text", "pair"))
        return {text for column in columns for text in column if text}

    return sorted(those_of(dataset.train, dataset.unlabelled) - those_of(dataset.selection, dataset.test))


def prepared(experiment: Experiment, dataset: Dataset, bundle: Bundle, collective: Collective) -> Prepared | None:
    """What `experiment.model.prepare` makes of the bundle's base; None when it asks for nothing.

    The first worker computes it, or finds it on disk, and the others receive it. Raises `UserError`.
    """
    stages = [stage for stage in experiment.model.prepare if stage.steps]
    if not stages:
        return None
    found = None
    if collective.rank == 0:
        model = experiment.model
        corpus = Corpus.of(dataset, bundle.path, bundle.vocabulary, model.max_length)
        found = _chain(stages, corpus, experiment, bundle)
    return found if collective.world == 1 else _shared(found, stages, bundle, collective)  # type: ignore[return-value]


def _chain(stages: Sequence[Preparation], corpus: Corpus, experiment: Experiment, bundle: Bundle) -> Prepared:
    """Every stage on top of the one before it, each from the disk where it is known."""
    device = next(bundle.module.parameters()).device
    prefix = f"{bundle.module.base_model_prefix}."
    identity: list[Any] = [FORMAT, digest_of(bundle.path), device.type, experiment.model.max_length]
    identity += [experiment.seed, corpus.digest, bundle.vocabulary and bundle.vocabulary.packed.hex()]
    weights: dict[str, Tensor] = {}
    records = []
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
        body, record = _kept(key, functools.partial(_made, stage, checkpoint, corpus, known))
        weights |= {f"{prefix}{name}": value for name, value in body.items()}
        records.append(record)
    return Prepared(weights=weights, records=tuple(records))


def counts(corpus: Corpus, size: int) -> seeding.F64:
    """How often each of `size` ids occurs in the texts that are learnt from."""
    return np.bincount(corpus.ids.flatten().to_numpy(), minlength=size)[:size].astype(np.float64)


def _made(stage: Preparation, checkpoint: Checkpoint, corpus: Corpus, known: Sequence[str], folder: Path) -> None:
    learner = stage.learner(checkpoint)
    record = learn(stage, learner, checkpoint, corpus)
    state = learner.body.state_dict()
    body = {name: state[name].detach().cpu().contiguous().clone() for name in known if name in state}
    need_space(folder, sum(value.numel() * value.element_size() for value in body.values()))
    safetensors.torch.save_file(body, folder / _WEIGHTS)
    about = {**asdict(record), "sha256": sha256(folder / _WEIGHTS)}
    (folder / _ABOUT).write_text(json.dumps(about), "utf-8")


def language_model(
    experiment: Experiment, dataset: Dataset, stage: Preparation, device: torch.device, directory: Path, tell: Tell
) -> Record:
    """Train the language model of the experiment's source on the data's texts and write it to `directory`, with its
    head: masked for an encoder, causal for a decoder. Raises `UserError`."""
    model = experiment.model
    path, kept = str(assets.resolve(model.source)), vocabulary(experiment, dataset)
    corpus = Corpus.of(dataset, path, kept, model.max_length)
    checkpoint = Checkpoint(
        name=model.source,
        path=path,
        vocabulary=kept,
        device=device,
        seed=seeding.integer(experiment.seed, "prepare", 0),
        counts=counts(corpus, len(tokenizer(path, kept))),
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
    tables = (dataset.train, dataset.selection, dataset.unlabelled)
    columns = [table[name] for table in tables for name in ("text", "pair")]
    return used(tokenizer(str(assets.resolve(experiment.model.source))).backend_tokenizer, columns)


# -- the disk -----------------------------------------------------------------------------------------------------------


def _kept(key: str, make: Any) -> tuple[dict[str, Tensor], Record]:
    """What is on disk under `key`, made before if it is not there or no longer whole."""
    root = assets.root() / "prepared"
    folder = root / key
    for _ in range(3):
        build_once(folder, make, _is_whole)
        try:
            folder.touch()
            about = json.loads((folder / _ABOUT).read_text("utf-8"))
            data = (folder / _WEIGHTS).read_bytes()
        except FileNotFoundError:  # another process needed the room between these two lines
            continue
        _make_room(root, folder)
        about.pop("sha256")
        return safetensors.torch.load(data), Record(**about)
    raise UserError(f"{root}: what is prepared there is removed at once by others: give it more room")


def _is_whole(folder: Path) -> bool:
    try:
        about = json.loads((folder / _ABOUT).read_text("utf-8"))
        return bool(sha256(folder / _WEIGHTS) == about["sha256"])
    except (OSError, ValueError, KeyError):
        return False


def _make_room(root: Path, mine: Path) -> None:
    """Drop what was used longest ago, as far as there is more than `KEPT_BYTES`."""
    folders = sorted((f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")), key=_age, reverse=True)
    total = 0
    for folder in folders:
        total += sum(file.stat().st_size for file in folder.glob("*") if file.exists())
        if total > KEPT_BYTES and folder != mine:
            shutil.rmtree(folder, ignore_errors=True)


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def digest_of(path: str) -> str:
    """SHA-256 over a model directory's files, names and contents."""
    files = sorted(file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith("."))
    return _digest(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in files:
        total.update(f"{Path(name).name} {sha256(Path(name))}\n".encode())
    return total.hexdigest()


# -- the workers --------------------------------------------------------------------------------------------------------


def _shared(found: Prepared | None, stages: Sequence[Preparation], bundle: Bundle, collective: Collective) -> Prepared:
    """The first worker's result, on every one: a sum to which the others add nothing."""
    prefix = f"{bundle.module.base_model_prefix}."
    weights = {}
    for name in sorted(name for name in bundle.base if name.startswith(prefix)):
        mine = torch.zeros_like(bundle.base[name])
        if found is not None:
            mine = found.weights.get(name, bundle.base[name])
        weights[name] = collective.sum(mine)
    table = torch.zeros(len(stages), 6, dtype=torch.float64)
    if found is not None:
        table = torch.tensor([list(asdict(record).values()) for record in found.records], dtype=torch.float64)
    rows = collective.sum(table).tolist()
    return Prepared(weights=weights, records=tuple(Record(**_as_record(row)) for row in rows))


def _as_record(row: Sequence[float]) -> dict[str, Any]:
    values: dict[str, Any] = dict(zip(Record.__dataclass_fields__, row, strict=True))
    return values | {"steps": int(values["steps"])}


# -- the loop -----------------------------------------------------------------------------------------------------------


def learn(stage: Preparation, learner: Learner, checkpoint: Checkpoint, corpus: Corpus, tell: Tell | None = None) -> Record:
    """Train the learner's module in place. `tell`: hears of every step. Raises `UserError` when it diverges."""
    began = time.monotonic()
    optim = Optim(steps=stage.steps, lr=stage.lr, head_lr=stage.head_lr, warmup=WARMUP, weight_decay=WEIGHT_DECAY)
    adamw = torch.optim.AdamW(_groups(learner, optim), lr=optim.lr, betas=BETAS, eps=EPS, fused=True)
    parameters = [value for group in adamw.param_groups for value in group["params"]]
    before = measure(learner, checkpoint, corpus, stage.batch_size)
    learner.module.train()
    for step, batch in enumerate(_batches(stage, checkpoint, corpus)):
        torch.manual_seed(seeding.integer(checkpoint.seed, "dropout", step))
        loss = learner.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(parameters, CLIP_NORM))
        if not math.isfinite(norm):
            raise UserError(f"{stage.name}: the gradient is not finite at step {step + 1}: lower its lr, {stage.lr:g}")
        for group in adamw.param_groups:
            group["lr"] = learning_rate(optim, step) * group["scale"]
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        if tell is not None:
            tell(step + 1, float(loss.detach()))
    after = measure(learner, checkpoint, corpus, stage.batch_size)
    return Record(
        steps=stage.steps,
        seconds=time.monotonic() - began,
        first=before["loss"],
        last=after["loss"],
        top1=after["top1"],
        top5=after["top5"],
    )


def measure(learner: Learner, checkpoint: Checkpoint, corpus: Corpus, batch_size: int) -> dict[str, float]:
    """Means over the held-out texts: `loss`, `top1`, `top5`. The same masks, deletions and dropout every time."""
    learner.module.eval()
    total: dict[str, float] = {}
    lengths = corpus.held_out.value_lengths().to_numpy(zero_copy_only=False)
    order = np.argsort(lengths, kind="stable")
    torch.manual_seed(seeding.integer(checkpoint.seed, "measure"))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        keys = seeding.keys(checkpoint.seed, "held out", rows)
        for name, value in learner.measure(collate(corpus.held_out, rows, keys, checkpoint)).items():
            total[name] = total.get(name, 0.0) + value
    count = max(1.0, total.pop("count"))
    return {name: value / count for name, value in total.items()}


def _batches(stage: Preparation, checkpoint: Checkpoint, corpus: Corpus) -> Iterator[TokenBatch]:
    plan = batching.plan(
        corpus.ids.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64),
        Augment(),
        batch_size=stage.batch_size,
        steps=stage.steps,
        seed=checkpoint.seed,
    )
    for rows, epochs in zip(plan.row, plan.epoch, strict=True):
        yield collate(corpus.ids, rows, seeding.keys(checkpoint.seed, epochs, rows), checkpoint)


def collate(ids: pa.ListArray, rows: batching.I64, keys: seeding.U64, checkpoint: Checkpoint) -> TokenBatch:
    """The texts `rows`, padded to the longest."""
    taken = ids.take(pa.array(rows))
    lengths = taken.value_lengths().to_numpy(zero_copy_only=False)
    real = np.arange(lengths.max(initial=1)) < lengths[:, None]
    padded = np.full(real.shape, checkpoint.pad_id, np.int64)
    padded[real] = taken.flatten().to_numpy()
    special = np.isin(padded, checkpoint.special) | ~real
    return TokenBatch(ids=padded, real=real, special=special, keys=keys, rows=np.asarray(rows, np.int64))


def _groups(learner: Learner, optim: Optim) -> list[dict[str, Any]]:
    """All that moves, by weight decay and rate: matrices decay, embeddings do not; what is new has a rate of its own."""
    embeddings = {id(part.weight) for part in learner.module.modules() if isinstance(part, nn.Embedding)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in learner.module.named_parameters():
        decay = WEIGHT_DECAY if value.dim() > 1 and id(value) not in embeddings else 0.0
        scale = (optim.head_lr or optim.lr) / optim.lr if name in learner.new else 1.0
        groups.setdefault((decay, scale), []).append(value)
    return [{"params": found, "weight_decay": decay, "scale": scale} for (decay, scale), found in groups.items()]
