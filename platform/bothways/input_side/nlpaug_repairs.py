"""nlpaug's augmenters, built so that they run: with transformers 5, without a network, one model for each path.

What is mended is nlpaug 1.1.11's own, and every repair says what for. docs/nlpaug.md has the result for each augmenter.
"""

from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from bothways.errors import UserError
from bothways.lazy import torch
from bothways.text import TextBatch, decoded
from bothways.text.sentences import sentences

AUGMENTERS = {
    "char": ("KeyboardAug", "OcrAug", "RandomCharAug"),
    "word": (
        "AntonymAug",
        "BackTranslationAug",
        "ContextualWordEmbsAug",
        "RandomWordAug",
        "ReservedAug",
        "SpellingAug",
        "SplitAug",
        "SynonymAug",
        "TfIdfAug",
        "WordEmbsAug",
    ),
    "sentence": ("AbstSummAug", "ContextualWordEmbsForSentenceAug", "LambadaAug", "RandomSentAug"),
    "flow": ("Sequential", "Sometimes"),
}
NAMES = [f"{module}.{name}" for module, names in AUGMENTERS.items() for name in names]
MODELS = (
    "word.BackTranslationAug",
    "word.ContextualWordEmbsAug",
    "sentence.AbstSummAug",
    "sentence.ContextualWordEmbsForSentenceAug",
)
"""Those that hold a model of transformers."""


def construct(name: str, arguments: dict[str, Any]) -> Any:
    """An augmenter of nlpaug. Raises whatever nlpaug raises.

    A flow's argument `flow` is a list of mappings with `augmenter` and `arguments`.
    """
    module, cls = name.split(".")
    if module == "flow":
        steps = arguments.get("flow", [])
        inner = [construct(step["augmenter"], step.get("arguments", {})) for step in steps]
        return getattr(importlib.import_module("nlpaug.flow"), cls)(**{**arguments, "flow": inner})
    if name == "sentence.LambadaAug":
        raise UserError("it makes new texts from labels, and is no change of a text")
    package = importlib.import_module(f"nlpaug.augmenter.{module}")
    if name in MODELS:
        _mend_models()
    _forget_models()
    if name == "sentence.RandomSentAug":  # nlpaug's default is nltk with a download
        arguments = {"tokenizer": split, **arguments}
    built = getattr(package, cls)(**arguments)
    if name in ("word.ReservedAug", "word.SplitAug"):  # without a word to change they sort None
        found = built._get_aug_idxes
        built._get_aug_idxes = lambda tokens: found(tokens) or []
    return built


def split(text: str) -> list[str]:
    """A text's sentences."""
    batch, firsts = sentences(TextBatch.from_texts([text]))
    edges = [*firsts.tolist(), batch.kinds.size - 1]
    pieces = [batch.codes[batch.starts[a, 1] : batch.stops[max(a, b - 1), 1]] for a, b in pairwise(edges)]
    return [decoded(piece) for piece in pieces]


def _forget_models() -> None:
    """nlpaug keeps models by the last part of their path, or one for all paths: another directory got the first's."""
    for path, module in list(sys.modules.items()):
        if path.startswith("nlpaug.augmenter."):
            for variable in [v for v in vars(module) if v.endswith(("_MODEL", "_MODELS"))]:
                setattr(module, variable, {})


def _mend_models() -> None:
    """What transformers 5 has dropped, and a worker process for every text."""
    models: Any = importlib.import_module("nlpaug.model.lang_models")
    for model in [model for model in vars(models).values() if hasattr(model, "token2id")]:
        model.token2id = lambda self, token: _tokenizer(self).convert_tokens_to_ids(token)
        model.id2token = lambda self, number: _tokenizer(self).convert_ids_to_tokens(number)
    translation: Any = importlib.import_module("nlpaug.model.lang_models.machine_translation_transformers")
    translation.t_data = SimpleNamespace(TensorDataset=torch.utils.data.TensorDataset, DataLoader=_loader)
    models.XSumTransformers = _Summaries


def _tokenizer(model: Any) -> Any:
    return model.tokenizer if hasattr(model, "tokenizer") else model.model.tokenizer


def _loader(dataset: Any, *, batch_size: int, **_: Any) -> Any:
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size)


class _Summaries:
    """Stands for nlpaug's XSumTransformers: the pipeline `summarization` is gone from transformers 5."""

    def __init__(self, model_name: str, tokenizer_name: str | None = None, device: str = "cpu", **options: Any) -> None:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self.device = device
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer_name or model_name)
        self._model = AutoModelForSeq2SeqLM.from_pretrained(model_name).to(device).eval()
        self._batch_size: int = options.pop("batch_size", 32)
        self._options = options

    def predict(self, texts: list[str], target_words: Any = None, n: int = 1) -> list[str]:
        found: list[str] = []
        for start in range(0, len(texts), self._batch_size):
            inputs = self._tokenizer(
                texts[start : start + self._batch_size], return_tensors="pt", padding=True, truncation=True
            ).to(self.device)
            with torch.no_grad():
                made = self._model.generate(**inputs, do_sample=True, **self._options)
            found += self._tokenizer.batch_decode(made, skip_special_tokens=True)
        return found
