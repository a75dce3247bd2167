"""Each family of models with each task: what it is trained on, and which pairs there are not."""

from __future__ import annotations

from typing import Any

from bothways.config import Experiment
from bothways.data import Dataset
from bothways.registry import TASKS
from tests import tiny
from tests.tasks.test_families import data_of

NO_DECODER = "there is no CausalLM of the family {}: take a decoder .* seq2seq"
NO_WRITER = "there is no Seq2SeqLM of the family {}: take an encoder-decoder .* causal_lm"
REFUSED = {
    ("bart", "token_classification"): "there is no TokenClassification of the family bart: take an encoder",
    ("xlnet", "causal_lm"): "XLNet sees what it would have to write: take a decoder",
    **{(one, "causal_lm"): NO_DECODER.format(one) for one in ("distilbert", "t5", "bart")},
    ("deberta", "causal_lm"): NO_DECODER.format("deberta-v2"),
    **{(one, "seq2seq"): NO_WRITER.format(one) for one in ("distilbert", "xlnet", "gpt2", "llama")},
    **{(one, "seq2seq"): NO_WRITER.format(kind) for one, kind in (("deberta", "deberta-v2"), ("qwen", "qwen3"))},
}
"""What is said of pairs that there are not."""
PAIRS = [(family, task) for task in TASKS.names() for family in tiny.FAMILIES if (family, task) not in REFUSED]


def made(family: str, name: str) -> tuple[Experiment, Dataset]:
    """Three steps of a task on a family, and their data."""
    task, data = data_of(name)
    optim = {"steps": 3, "evaluate_every": 3, "lr": 0.01, "warmup": 0.0}
    parts: dict[str, Any] = {"data": {"pair": "pair"}} if name == "question_answering" else {}
    return tiny.experiment(family, task=task, model={"dropout": 0.0}, optim=optim, **parts), data
