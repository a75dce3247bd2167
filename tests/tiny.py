"""Small real things for tests: encoders of three families with random weights, and texts that can be learnt."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from bothways.config import Experiment
from bothways.data import Dataset
from bothways.edges.local import OneWorker, execute
from bothways.models import compact, load, reset, save
from bothways.trial import Trial, Workspace

GOOD = ["good", "great", "lovely"]
BAD = ["bad", "awful", "dull"]
OTHER = [
    "the", "a", "film", "story", "actor", "scene", "plot", "it", "was", "is",
    "and", "with", "very", "quite", "one", "not", "music", "end", "start", "line",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNSEEN = [f"unseen{number}" for number in range(200)]  # rows of the embedding that no text touches
LABELS = ("negative", "positive")

_SIZES: dict[str, Any] = {
    "bert": BertConfig(vocab_size=1, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32),
    "roberta": RobertaConfig(
        vocab_size=9,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        type_vocab_size=1,
    ),
    "distilbert": DistilBertConfig(vocab_size=1, dim=16, n_layers=3, n_heads=2, hidden_dim=32),
}


def model_dir(family: str = "bert") -> str:
    """A directory with a pretrained body (weights random, but always the same) and a word tokenizer."""
    return _model_dir(family)


@functools.cache
def _model_dir(family: str) -> str:
    path = Path(tempfile.mkdtemp(prefix="bothways-tiny-")) / family
    words = [*SPECIAL, *GOOD, *BAD, *OTHER, *UNSEEN]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"] + (["token_type_ids"] if family == "bert" else []),
    ).save_pretrained(path)
    config = _SIZES[family]
    config.vocab_size = len(words)
    config.pad_token_id = 0
    config.max_position_embeddings = 48
    with torch.random.fork_rng():
        torch.manual_seed(7)
        AutoModel.from_config(config).save_pretrained(path)
    return str(path)


@functools.cache
def saved_model(family: str = "bert", seed: int = 0, labels: tuple[str, ...] = LABELS) -> str:
    """The directory of a saved model whose head, of random weights, prefers one label or the other."""
    bundle = load(model_dir(family), labels)
    reset(bundle, labels=labels, dropout=None, seed=seed)
    with torch.no_grad():
        for value in bundle.module.parameters():
            value *= 6 if value.dim() > 1 else 1
    path = Path(tempfile.mkdtemp(prefix="bothways-teacher-")) / "model"
    save(path, compact(bundle), base=bundle.base, labels=labels, paired=False, experiment=experiment(family))
    return str(path)


def rows(count: int, seed: int, first_id: int = 0, paired: bool = False) -> pa.Table:
    """Rows whose label shows in one word (of the pair, where there is one); lengths vary from 3 to 12 words."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2

    def sentence(label: int) -> str:
        words = list(draw.choice(OTHER, draw.integers(2, 11)))
        words.insert(int(draw.integers(0, len(words))), str(draw.choice(GOOD if label else BAD)))
        return " ".join(words)

    signals = [sentence(label) for label in labels.tolist()]
    neutral = [" ".join(draw.choice(OTHER, 4)) for _ in labels]
    return pa.table(
        {
            "id": pa.array(range(first_id, first_id + count), pa.int64()),
            "text": pa.array(neutral if paired else signals, pa.string()),
            "pair": pa.array(signals, pa.string()) if paired else pa.nulls(count, pa.string()),
            "label": pa.array(labels, pa.int64()),
        }
    )


def without_labels(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("label"), "label", pa.nulls(len(table), pa.int64()))


def dataset(train: int = 40, paired: bool = False, mixed: int = 0) -> Dataset:
    """Three splits without a row in common, and rows of another source."""
    return Dataset(
        train=rows(train, seed=1, paired=paired),
        selection=rows(30, seed=2, first_id=10_000, paired=paired),
        test=rows(25, seed=3, first_id=20_000, paired=paired),
        unlabelled=without_labels(rows(30, seed=4, first_id=30_000, paired=paired)),
        labels=LABELS,
        mixed=(rows(mixed, seed=5, first_id=40_000, paired=paired),) if mixed else (),
        digest=f"tiny-{train}-{paired}-{mixed}",
        notes=(),
    )


def experiment(family: str = "bert", **parts: Any) -> Experiment:
    """A short experiment on the tiny model; `parts` replace or extend its sections."""
    spec: dict[str, Any] = {
        "data": {"source": "made in the test"},
        "model": {"source": model_dir(family), "max_length": 24},
        "optim": {"steps": 20, "batch_size": 8, "lr": 2e-3, "evaluate_every": 5},
    }
    for name, part in parts.items():
        spec[name] = {**spec.get(name, {}), **part} if isinstance(part, dict) else part
    return Experiment(**spec)


def trial(what: Experiment, directory: Path, workspace: Workspace | None = None, data: Dataset | None = None) -> Trial:
    """A trial by one worker in this process."""
    return Trial(
        what,
        data or dataset(),
        collective=OneWorker(),
        execute=execute,
        workspace=workspace or Workspace(),
        directory=directory,
    )
