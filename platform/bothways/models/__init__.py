"""Pretrained models as a task needs them: loaded once, reset from memory, saved as what training changed.

A saved model is a small directory: `weights.safetensors` holds the differences to the base weights as fp16 (for
matrices with few changed rows, such as embeddings, those rows only) and a new head as fp32; `model.json` names the
base by source and digest, the labels, and the experiment, so that prediction reads text as training did. `export`
writes the same model as an ordinary transformers directory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from transformers.utils import logging

from bothways import assets, config, seeding
from bothways.errors import UserError, one_line
from bothways.models.fast_encoder import quicken
from bothways.models.pretrained import dropout_rates, own_weights, places, pretrained
from bothways.models.pruning import prune
from bothways.registry import TASKS
from bothways.task_contract import TaskLike
from bothways.tokenization import Vocabulary, tokenizer
from bothways.training.checkpoints import atomic_directory, need_space, size_of

FORMAT = 1
_WEIGHTS = "weights.safetensors"
_ABOUT = "model.json"
_ALIGNED = 64  # bytes
_VOCABULARY = "vocabulary"  # among the weights: the ids of the base that are kept, if not all are

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model in memory. `base`: its pretrained weights by name, on the CPU; parameters not in it are the new head.

    `vocabulary`: what is kept of it; None for all.
    """

    module: Any
    path: str
    vocabulary: Vocabulary | None = None
    base: Weights
    dropouts: Mapping[tuple[str, str], float] = field(repr=False)
    dropout_settings: Mapping[str, Any] = field(repr=False)

    @property
    def pad_id(self) -> int:
        """The token id that fills up short rows."""
        return int(tokenizer(self.path, self.vocabulary).pad_token_id or 0)

    def check_length(self, model: config.Model) -> None:
        """Raises `UserError` when rows may get longer than the model can read."""
        most = places(self.module)
        if most is not None and model.max_length > most:
            raise UserError(f"model.max_length {model.max_length}: {model.source} reads at most {most} tokens")

    @property
    def start_id(self) -> int | None:
        """The token that the decoder of an encoder-decoder begins with; None for other models."""
        if not self.module.config.is_encoder_decoder:
            return None
        settings = (self.module.config, getattr(self.module, "generation_config", None))  # which only writers have
        found = (getattr(one, "decoder_start_token_id", None) for one in settings)
        return next((int(token) for token in found if token is not None), self.pad_id)


class About(BaseModel):
    """`model.json`. `base` is null for an exported model, which has all its weights itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    labels: tuple[str, ...]
    paired: bool
    experiment: config.Experiment
    base: dict[str, str] | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no report of the head being new: that it is new is the point."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def load(
    source: str,
    labels: tuple[str, ...],
    device: torch.device | str = "cpu",
    vocabulary: Vocabulary | None = None,
    task: TaskLike | None = None,
) -> Bundle:
    """The pretrained model of `source` for `task` (None: classification) with these labels, fp32. A new head's weights
    are not set: see `reset`.

    `vocabulary`: what to keep of it (None: all). Raises `UserError` when the source holds no such model.
    """
    path = str(assets.resolve(source))
    try:
        with quiet():
            module, new = pretrained(path, (task or TASKS.build("classification")).architecture(labels))
    except (OSError, ValueError) as error:
        raise UserError(f"model {source}: {one_line(error)}") from error
    if vocabulary is not None:
        if vocabulary.ids[-1] >= module.get_input_embeddings().num_embeddings:
            raise UserError(f"model {source}: its tokenizer has ids that the model has no embedding for")
        prune(module, vocabulary)
    module.to(device)
    _align(module)
    quicken(module)
    return Bundle(
        module=module,
        path=path,
        vocabulary=vocabulary,
        base={name: value.to("cpu", copy=True) for name, value in own_weights(module).items() if name not in new},
        dropouts=dropout_rates(module),
        dropout_settings={
            key: value
            for key, value in module.config.to_dict().items()
            if ("dropout" in key or "pdrop" in key) and (value is None or isinstance(value, float))
        },
    )


def _align(module: Any) -> None:
    """Weights where an array of torch's own would begin. Read from a file they begin anywhere, and with that a product
    of the same numbers may differ in its last bits: what a model says would depend on how its file is laid out."""
    for value in module.parameters():
        if value.data_ptr() % _ALIGNED:
            value.data = value.data.clone()


def reset(
    bundle: Bundle, *, labels: tuple[str, ...], dropout: float | None, seed: int, start: Weights | None = None
) -> None:
    """Bring the module back to the start of training, in place: base weights, a new head, no gradients.

    A head parameter depends on `seed` and its own name only. `dropout` replaces every rate of the model. `start`: what
    training starts from in place of some or all of the base weights.
    """
    module = bundle.module
    known = {**bundle.base, **(start or {})}
    std = float(getattr(module.config, "initializer_range", 0.02))
    with torch.no_grad():
        for name, value in own_weights(module).items():
            value.copy_(known[name] if name in known else _new_parameter(name, value.shape, std, seed))
    module.requires_grad_(True)
    module.zero_grad(set_to_none=True)
    for (name, key), rate in bundle.dropouts.items():
        setattr(module.get_submodule(name), key, rate if dropout is None else dropout)
    for key, rate in bundle.dropout_settings.items():
        setattr(module.config, key, rate if dropout is None else dropout)
    if labels:
        module.config.id2label = dict(enumerate(labels))
        module.config.label2id = {label: index for index, label in enumerate(labels)}


def _new_parameter(name: str, shape: torch.Size, std: float, seed: int) -> Tensor:
    """Matrices normal, biases zero, the scales of normalisations one: the initialisation of BERT and its kin."""
    if len(shape) < 2:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    generator = torch.Generator().manual_seed(seeding.integer(seed, "head", name))
    return torch.empty(shape).normal_(0.0, std, generator=generator)


def digest(weights: Weights) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def compact(bundle: Bundle) -> dict[str, Tensor]:
    """What has to be stored of the module beside its base: see the module's docstring.

    A restored weight is off by at most 2^-11 of its difference to the base, or 3e-8 where that is larger.
    """
    stored: dict[str, Tensor] = {}
    if bundle.vocabulary is not None:
        stored[_VOCABULARY] = torch.from_numpy(bundle.vocabulary.ids.copy())
    for name, tensor in own_weights(bundle.module).items():
        value = tensor.detach().cpu()
        base = bundle.base.get(name)
        if base is None:
            stored[name] = value.clone()
        elif not torch.equal(value, base):
            delta = value - base
            if delta.dim() == 2:
                rows = delta.ne(0).any(dim=1).nonzero()[:, 0]
                if 2 * len(rows) < len(delta):
                    stored[f"{name}.rows"], delta = rows.int(), delta[rows]
            half = delta.half()
            stored[f"{name}.delta"] = half if bool(half.isfinite().all()) else delta
    return stored


def restore(bundle: Bundle, stored: Weights) -> None:
    """Set the module's weights to base + stored differences, in place."""
    with torch.no_grad():
        for name, target in own_weights(bundle.module).items():
            if name in stored:
                target.copy_(stored[name])
                continue
            target.copy_(bundle.base[name])
            if f"{name}.rows" in stored:
                rows = stored[f"{name}.rows"].long()
                target[rows.to(target.device)] = (bundle.base[name][rows] + stored[f"{name}.delta"]).to(target.device)
            elif f"{name}.delta" in stored:
                target.copy_(bundle.base[name] + stored[f"{name}.delta"])


def save(
    directory: Path,
    stored: Weights,
    *,
    base: Weights,
    labels: tuple[str, ...],
    paired: bool,
    experiment: config.Experiment,
) -> None:
    """Write what `compact` gave as a saved model, atomically. Raises `UserError` when the disk is full."""
    about = About(
        labels=labels,
        paired=paired,
        experiment=experiment,
        base={"source": experiment.model.source, "sha256": digest(base)},
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    need_space(directory.parent, size_of(stored))
    with atomic_directory(directory) as aside:
        safetensors.torch.save_file(dict(stored), aside / _WEIGHTS)
        (aside / _ABOUT).write_text(json.dumps(_plain(about), indent=1, ensure_ascii=False), "utf-8")


def _plain(about: About) -> dict[str, Any]:
    return about.model_dump(mode="json", exclude={"experiment"}) | {"experiment": about.experiment.spec()}


def read_about(directory: Path) -> About:
    """`model.json` of a saved or exported model. Raises `UserError` when there is none that this version can read."""
    file = directory / _ABOUT
    try:
        about = About(**json.loads(file.read_text("utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{directory} is not a saved model: it has no {_ABOUT}") from error
    except (OSError, TypeError, ValueError, ValidationError) as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}") from error
    if about.format != FORMAT:
        raise UserError(f"{file} has format {about.format}; this version of bothways reads format {FORMAT}")
    return about


def load_saved(directory: Path, device: torch.device | str = "cpu") -> tuple[Bundle, About]:
    """A saved or exported model, ready to predict.

    Raises `UserError` when the base is not the one the model was trained from.
    """
    about = read_about(directory)
    model = about.experiment.model
    if about.base is None:
        return load(str(directory), about.labels, device, task=about.experiment.task), about
    kept = None
    if model.vocabulary == "corpus":
        with _readable(directory / _WEIGHTS) as file, safetensors.safe_open(file, "pt") as stored:
            kept = Vocabulary.of(stored.get_tensor(_VOCABULARY).tolist())
    bundle = load(model.source, about.labels, device, kept, about.experiment.task)
    if digest(bundle.base) != about.base["sha256"]:
        raise UserError(f"{directory} was trained from other weights than {model.source} has now")
    reset(bundle, labels=about.labels, dropout=model.dropout, seed=about.experiment.seed)
    with _readable(directory / _WEIGHTS) as file:
        restore(bundle, safetensors.torch.load_file(file))
    return bundle, about


@contextmanager
def _readable(file: Path) -> Iterator[Path]:
    """Whatever a damaged file makes its reader raise is a `UserError` that names the file."""
    try:
        yield file
    except (OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}") from error


def export(source: Path, target: Path) -> None:
    """Write a saved model as an ordinary, self-contained transformers directory (with `model.json` beside)."""
    bundle, about = load_saved(source)
    with atomic_directory(target) as aside, quiet():
        bundle.module.save_pretrained(aside)
        tokenizer(bundle.path, bundle.vocabulary).save_pretrained(aside)
        plain = _plain(about.model_copy(update={"base": None}))
        (aside / _ABOUT).write_text(json.dumps(plain, indent=1, ensure_ascii=False), "utf-8")
