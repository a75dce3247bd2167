"""Small real things for tests: models of eleven families with random weights, and texts that can be learnt."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from bothways.config import Experiment
from bothways.data import Dataset
from bothways.edges.local import OneWorker, execute
from bothways.models import compact, load, reset, save
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace

GOOD = ["good", "great", "lovely"]
BAD = ["bad", "awful", "dull"]
OTHER = [
    "the", "a", "film", "story", "actor", "scene", "plot", "it", "was", "is",
    "and", "with", "very", "quite", "one", "not", "music", "end", "start", "line",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNSEEN = [f"unseen{number}" for number in range(200)]  # rows of the embedding that no text touches
LABELS = ("negative", "positive")

_DECODER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
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
    "electra": ElectraConfig(
        embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32
    ),
    "deberta": DebertaV2Config(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
    ),
    "xlnet": XLNetConfig(d_model=16, n_layer=2, n_head=2, d_inner=32, bos_token_id=2, eos_token_id=3),
    "t5": T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, eos_token_id=3),
    "bart": BartConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        forced_eos_token_id=None,
    ),
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3),
    "llama": LlamaConfig(**_DECODER),
    "qwen": Qwen3Config(**_DECODER, head_dim=8, tie_word_embeddings=True),
}
DECODERS = ("gpt2", "llama", "qwen")
FAMILIES = tuple(_SIZES)
_CLASSES = {
    "t5": AutoModelForSeq2SeqLM,
    "bart": AutoModelForSeq2SeqLM,
    **dict.fromkeys(DECODERS, AutoModelForCausalLM),
    "xlnet": AutoModelForCausalLM,
}
_TEMPLATES = {"xlnet": ("$A [SEP] [CLS]:2", "$A [SEP] $B:1 [SEP]:1 [CLS]:2")}
_TYPED = ("bert", "electra", "deberta", "xlnet")


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
    if family not in DECODERS:
        single, pair = _TEMPLATES.get(family, ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"))
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        **({"eos_token": "[SEP]"} if family in DECODERS else {"cls_token": "[CLS]", "sep_token": "[SEP]"}),
        model_input_names=["input_ids", "attention_mask"] + (["token_type_ids"] if family in _TYPED else []),
    ).save_pretrained(path)
    config = _SIZES[family]
    config.vocab_size = len(words)
    config.pad_token_id = 0
    if family != "xlnet":  # its positions are relative, and have no end
        config.max_position_embeddings = 48
    with torch.random.fork_rng():
        torch.manual_seed(7)
        _CLASSES.get(family, AutoModel).from_config(config).save_pretrained(path)
    return str(path)


@functools.cache
def masked_lm_dir(words: tuple[str, ...]) -> str:
    """A directory with a masked language model (weights random, but always the same), head and all. Its vocabulary is
    `words`, each Chinese character of theirs, each letter within a word."""
    path = Path(tempfile.mkdtemp(prefix="bothways-tiny-")) / "masked-lm"
    characters = sorted({character for word in words for character in word.lower()})
    known = [*SPECIAL, *dict.fromkeys([*map(str.lower, words), *characters, *(f"##{one}" for one in characters)])]
    backend = Tokenizer(models.WordPiece({word: index for index, word in enumerate(known)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.add_special_tokens(SPECIAL)
    names = {
        role: f"[{role[:-6].upper()}]" for role in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    }
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(known), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        BertForMaskedLM(config).save_pretrained(path)
    return str(path)


@functools.cache
def causal_lm_dir() -> str:
    """A directory with a decoder (weights random, but always the same) and the tokenizer of `model_dir`."""
    path = Path(tempfile.mkdtemp(prefix="bothways-tiny-")) / "causal-lm"
    words = PreTrainedTokenizerFast.from_pretrained(model_dir())
    words.save_pretrained(path)
    config = GPT2Config(vocab_size=len(words), n_embd=16, n_layer=2, n_head=2, n_positions=48, pad_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        GPT2LMHeadModel(config).save_pretrained(path)
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


def rows_file(folder: Path, count: int = 200, seed: int = 4) -> Path:
    """Labelled rows, no two alike, as a file that pipelines read."""
    lines = [f"{LABELS[row['label']]}\t{row['text']} {at}" for at, row in enumerate(rows(count, seed).to_pylist())]
    file = folder / "rows.tsv"
    file.write_text("label\ttext\n" + "".join(f"{line}\n" for line in lines))
    return file


def labelled(table: pa.Table, make: Callable[[str, int], Any], kind: pa.DataType) -> pa.Table:
    """The rows with other labels: what `make` gives for a text and its class."""
    labels = [make(*row) for row in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)]
    return table.set_column(table.column_names.index("label"), "label", pa.array(labels, kind))


def dataset_of(make: Callable[[str, int], Any], kind: pa.DataType, labels: tuple[str, ...] = ()) -> Dataset:
    """`dataset(80)` with other labels."""
    plain = dataset(train=80)
    parts = {name: labelled(getattr(plain, name), make, kind) for name in ("train", "selection", "test")}
    return replace(plain, **parts, labels=labels, digest=f"tiny-{kind}")


def answered(feedback: int, clean: int = 0) -> Dataset:
    """Texts whose answer is the word that tells the class; rows of feedback, on wrong answers, and `clean` ones."""

    def right(table: pa.Table) -> pa.Table:
        return labelled(table, lambda text, _: signal(text), pa.string())

    data = dataset_of(lambda text, _: signal(text), pa.string())
    better = right(rows(feedback, seed=6, first_id=50_000))
    worse = better.set_column(3, "label", pa.array([OTHER[0]] * feedback, pa.string()))
    told = better.set_column(1, "text", pa.array([f"{OTHER[0]} {text}" for text in better["text"].to_pylist()]))
    trusted = right(rows(clean, seed=9, first_id=80_000)) if clean else None
    return replace(data, feedback=(better, worse, told), clean=trusted)


def signal(text: str) -> str:
    """The one word that tells the class."""
    return next(word for word in text.split() if word in GOOD + BAD)


def without_labels(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("label"), "label", pa.nulls(len(table), pa.int64()))


def judged(count: int) -> tuple[pa.Table, ...]:
    """Rows of feedback in their parts: better answers, worse ones, and what was said with the better ones."""
    better = rows(count, seed=7, first_id=70_000)
    worse = better.set_column(3, "label", pa.array(1 - better["label"].to_numpy(), pa.int64()))
    said = [f"{OTHER[0]} {text}" for text in better["text"].to_pylist()]
    return better, worse, better.set_column(1, "text", pa.array(said, pa.string()))


def dataset(train: int = 40, paired: bool = False, unlabelled: int = 30, mixed: int = 0, **more: int) -> Dataset:
    """Three splits without a row in common, text without labels and rows of another source; of `clean` ones, of two
    more `tasks` and of `feedback` as many as asked for."""
    clean, tasks, feedback = (more.pop(name, 0) for name in ("clean", "tasks", "feedback"))
    assert not more
    return Dataset(
        train=rows(train, seed=1, paired=paired),
        selection=rows(30, seed=2, first_id=10_000, paired=paired),
        test=rows(25, seed=3, first_id=20_000, paired=paired),
        unlabelled=without_labels(rows(unlabelled, seed=4, first_id=30_000, paired=paired)),
        labels=LABELS,
        mixed=(rows(mixed, seed=5, first_id=40_000, paired=paired),) if mixed else (),
        feedback=judged(feedback) if feedback else (),
        clean=rows(clean, seed=6, first_id=50_000, paired=paired) if clean else None,
        auxiliary=auxiliary(tasks, paired) if tasks else (),
        auxiliary_classes=(2, 3) if tasks else (),
        digest=f"tiny-{train}-{paired}-{unlabelled}-{mixed}-{clean}-{tasks}-{feedback}",
        notes=(),
    )


def auxiliary(count: int, paired: bool) -> tuple[pa.Table, pa.Table]:
    """`count` rows of a task of classes 0 and 1, and twice as many of one of 2, 3 and 4: how long a text is."""
    first = rows(count, seed=7, first_id=60_000, paired=paired)
    second = rows(2 * count, seed=8, first_id=70_000, paired=paired)
    return first, labelled(second, lambda text, _: 2 + min(len(text.split()) // 4, 2), pa.int64())


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
