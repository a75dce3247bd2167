"""A model that keeps only what its texts use of the vocabulary gives the numbers of the whole one."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import models as backends
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    EncoderDecoderModel,
    PreTrainedTokenizerFast,
)

from bothways import data, models
from bothways.config import Fold
from bothways.errors import UserError
from bothways.predict import Predictor
from bothways.pretraining import preparing
from bothways.tokenization import Vocabulary, tokenizer
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace
from tests import tiny

LETTERS = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
NEW = [f"word{letter}" for letter in string.ascii_lowercase]  # in no text
VOCABULARY = list(dict.fromkeys([*tiny.SPECIAL, *NEW, *tiny.GOOD, *tiny.BAD, *tiny.OTHER, *LETTERS]))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small encoder whose tokenizer knows sub-words."""
    path = tmp_path_factory.mktemp("model")
    ids = {piece: number for number, piece in enumerate(VOCABULARY)}
    backend = Tokenizer(backends.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = {f"{token.strip('[]').lower()}_token": token for token in tiny.SPECIAL}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(ids), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        AutoModel.from_config(config).save_pretrained(path)
    return str(path)


def trial(source: str, vocabulary: str, directory: Path, workspace: Workspace | None = None, **parts: Any) -> Trial:
    model = {"source": source, "vocabulary": vocabulary, **parts.pop("model", {})}
    return tiny.trial(tiny.experiment(model=model, **parts), directory, workspace)


def numbers(trial: Trial) -> list[dict[str, float]]:
    """The metrics of every report, and of the test rows, times left out."""
    found = [report.metrics for report in trial.reports()]
    found.append(trial.score_test().metrics)
    return [{k: v for k, v in metrics.items() if not k.startswith("time/")} for metrics in found]


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"model": {"dropout": 0.0}, "optim": {"weight_decay": 0.1, "patience": 2}},
        {"output": {"objectives": ["rdrop", "adversarial"]}},
    ],
)
def test_training_gives_the_same_numbers_to_the_last_bit(source: str, tmp_path: Path, parts: dict[str, Any]) -> None:
    whole, corpus = (numbers(trial(source, name, tmp_path / name, **dict(parts))) for name in ("whole", "corpus"))
    assert whole == corpus
    assert len(whole) > 2


@pytest.mark.slow
def test_a_saved_model_has_its_vocabulary_with_it_and_predicts_as_the_whole_one(source: str, tmp_path: Path) -> None:
    texts = ["a good film", "awful !", "the unheard of story was dull , wordx"]
    found = {}
    for name in ("whole", "corpus"):
        done = trial(source, name, tmp_path / name)
        numbers(done)
        found[name] = Predictor(done.save())(texts)
    assert found["whole"][:2] == found["corpus"][:2]
    stored = safetensors.torch.load_file(tmp_path / "corpus" / "model" / "weights.safetensors")
    kept = [VOCABULARY[number] for number in stored["vocabulary"].tolist()]
    assert set(kept) == set(VOCABULARY) - set(NEW)
    assert "vocabulary" not in safetensors.torch.load_file(tmp_path / "whole" / "model" / "weights.safetensors")
    # A word that is not kept is read letter by letter, not as an unknown one.
    small = tokenizer(source, Vocabulary.of(stored["vocabulary"].tolist()))
    assert small.tokenize("wordx") == ["w", "##o", "##r", "##d", "##x"]


def test_an_exported_model_is_a_small_one_of_plain_transformers(source: str, tmp_path: Path) -> None:
    done = trial(source, "corpus", tmp_path / "trial")
    numbers(done)
    saved = done.save()
    models.export(saved, tmp_path / "exported")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported")
    assert plain.config.vocab_size == len(plain.get_input_embeddings().weight) == len(VOCABULARY) - len(NEW)
    texts = ["a good film", "awful and new"]
    ours, theirs = Predictor(saved)(texts), Predictor(tmp_path / "exported")(texts)
    with torch.no_grad():
        logits = plain(**AutoTokenizer.from_pretrained(tmp_path / "exported")(texts, padding=True, return_tensors="pt"))
    for row, other, third in zip(ours, theirs, logits.logits.softmax(1).tolist(), strict=True):
        assert list(row.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-6)
        assert list(row.probabilities.values()) == pytest.approx(third, abs=1e-6)


def test_a_vocabulary_has_what_was_said_of_answers(source: str) -> None:
    better, worse, told = tiny.judged(4)
    what = tiny.experiment(model={"source": source, "vocabulary": "corpus"})
    dataset = replace(tiny.dataset(), feedback=(better, worse, _with_text(told, "wordx")))
    found = preparing.vocabulary(what, dataset)
    assert found is not None
    assert VOCABULARY.index("wordx") in found.ids


def test_a_vocabulary_is_of_all_text_but_the_test_rows(source: str, tmp_path: Path) -> None:
    def kept(**texts: str) -> set[str]:
        changed = {split: pa.table({"text": [text], "pair": pa.nulls(1, pa.string())}) for split, text in texts.items()}
        plain = tiny.dataset()
        splits = {
            split: table if split == "unlabelled" else _with_text(getattr(plain, split), table["text"][0].as_py())
            for split, table in changed.items()
        }
        found = tiny.trial(
            tiny.experiment(model={"source": source, "vocabulary": "corpus"}),
            tmp_path / "-".join(texts.values()),
            data=replace(plain, **splits),
        )._bundle.vocabulary
        assert found is not None
        return {VOCABULARY[number] for number in found.ids} & set(NEW)

    assert kept(train="wordt", selection="words", unlabelled="wordu", test="wordz") == {"wordt", "words", "wordu"}


def _with_text(table: pa.Table, text: str) -> pa.Table:
    """The table with another text in its first row."""
    return table.set_column(1, "text", pa.array([text, *table["text"].to_pylist()[1:]]))


@pytest.mark.slow
def test_what_is_to_be_written_is_of_the_vocabulary_too_and_of_no_test_row(source: str, tmp_path: Path) -> None:
    def target(word: str) -> Any:
        return lambda text, label: f"{word} {tiny.signal(text)}"

    splits = {"train": "wordt", "selection": "words", "test": "wordz"}
    tables = {split: getattr(tiny.dataset_of(target(word), pa.string()), split) for split, word in splits.items()}
    task = {"name": "seq2seq", "target_length": 4, "generate": "always"}
    what = tiny.experiment(task=task, model={"source": source, "vocabulary": "corpus"})
    done = tiny.trial(what, tmp_path / "trial", data=replace(tiny.dataset_of(target(""), pa.string()), **tables))
    numbers(done)
    saved, exported = done.save(), tmp_path / "exported"
    models.export(saved, exported)
    stored = safetensors.torch.load_file(saved / "weights.safetensors")
    assert {VOCABULARY[number] for number in stored["vocabulary"].tolist()} & set(NEW) == {"wordt", "words"}
    texts = ["a good film", "awful and new"]
    assert Predictor(exported)(texts) == Predictor(saved)(texts)
    plain = EncoderDecoderModel.from_pretrained(exported)
    for half in (plain.encoder, plain.decoder):
        assert half.config.vocab_size == len(half.get_input_embeddings().weight) == len(VOCABULARY) - len(NEW) + 2


def test_folds_share_one_model(source: str, tmp_path: Path) -> None:
    workspace, whole = Workspace(), tiny.dataset()
    what = tiny.experiment(model={"source": source, "vocabulary": "corpus"})
    bundles = {
        id(tiny.trial(what, tmp_path / str(n), workspace, data.folded(whole, Fold(of=3, number=n), 0))._bundle)
        for n in range(3)
    }
    assert len(bundles) == 1


def test_a_saved_model_without_its_vocabulary_is_refused(source: str, tmp_path: Path) -> None:
    done = trial(source, "corpus", tmp_path / "trial")
    numbers(done)
    saved = done.save()
    file = saved / "weights.safetensors"
    stored = safetensors.torch.load_file(file)
    del stored["vocabulary"]
    safetensors.torch.save_file(stored, file)
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read: .*vocabulary"):
        Predictor(saved)
