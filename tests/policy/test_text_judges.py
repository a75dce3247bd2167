"""What models say of copies: whether labels stay, and how natural a text is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from bothways.config import Run
from bothways.data import folded
from bothways.edges import local
from bothways.policy import effects as text_effects
from bothways.policy.effects import Asked, of_copies
from bothways.policy.judges import Fidelity, Perplexity, unlearnt
from bothways.policy.screening import HALVES
from bothways.training.cross_validation import experiments
from bothways.training.workspace import Workspace
from tests import tiny


def table(texts: list[str], pairs: list[str] | None = None) -> pa.Table:
    rows = {"id": list(range(len(texts))), "text": texts, "pair": pairs or [None] * len(texts)}
    return pa.table(rows, schema=pa.schema([("id", pa.int64()), ("text", pa.string()), ("pair", pa.string())]))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A causal language model of tiny's words, weights random."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("causal")
    tokenizer = AutoTokenizer.from_pretrained(tiny.model_dir())
    tokenizer.bos_token = "[CLS]"
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=256)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_perplexity_is_the_exponential_of_the_mean_surprise_of_a_token(causal: str) -> None:
    judge = Perplexity(causal, "cpu")
    tokenizer, model = judge._loaded
    texts = ["the film was good", "a story", *["the plot was dull and the end was good"] * 20]
    losses = []
    for text in texts:  # one at a time: no padding
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-float(logs[at, ids[at + 1]]) for at in range(len(ids) - 1)]
    assert len(losses) == 4 + 2 + 9 * 20
    assert judge.of(texts) == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert judge(table(texts), table(texts))["perplexity_ratio"] == 1
    found = judge(table(["the film"]), table(["the film"], ["a story"]))
    assert found["perplexity"] == pytest.approx(judge.of(["the film", "a story"]))
    assert found["perplexity_ratio"] == pytest.approx(found["perplexity"] / judge.of(["the film"]))


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The two models that a search trains as its controls."""
    folder, found = tmp_path_factory.mktemp("controls"), []
    base = tiny.experiment(optim={"steps": 60, "evaluate_every": 60, "lr": 0.01})
    for number, half in enumerate(experiments(base, HALVES)):
        assert half.data.fold is not None
        rows = folded(tiny.dataset(), half.data.fold, half.data.split_seed)
        where = folder / str(number)
        found.append(
            local.run(half, Run(), trial_id="x", directory=where, dataset=rows, workspace=Workspace()).model_dir
        )
    return found


@pytest.mark.slow
def test_labels_stay_where_words_that_tell_stay(controls: list[str]) -> None:
    ids = unlearnt(tiny.dataset(), tiny.experiment())
    assert sorted(np.concatenate(ids).tolist()) == sorted([*range(40), *range(10_000, 10_030)])
    judge = Fidelity(list(zip(controls, ids, strict=True)), "cpu")
    rows = tiny.dataset().train
    opposite = dict(zip([*tiny.GOOD, *tiny.BAD], [*tiny.BAD, *tiny.GOOD], strict=True))
    turned = [" ".join(opposite.get(word, word) for word in text.split()) for text in rows["text"].to_pylist()]
    assert judge(rows, rows) == {"fidelity": 1.0}
    assert judge(rows, rows.set_column(1, "text", pa.array(turned)))["fidelity"] < 0.3
    assert Fidelity([(controls[0], np.array([-1]))], "cpu")(rows, rows) == {}

    def told(protect: float) -> float:
        augment = {"n_aug": 2, "policy": [[{"name": "random_deletion", "p": 0.7}]]}
        what = tiny.experiment(input={"augment": augment, "protect": {"label_words": protect}})
        counted = text_effects.policy.statistics(rows, "en", label_words=True)
        return of_copies(rows, what, counted, Asked(judges=(judge,)))["text/fidelity"]

    assert told(0.3) > told(0.0) + 0.1


def test_a_trial_asks_its_judges_once_and_tells_of_plain_copies_where_it_is_to(tmp_path: Path) -> None:
    asked: list[tuple[list[str], list[str]]] = []

    def judge(before: pa.Table, after: pa.Table) -> dict[str, float]:
        asked.append((before["text"].to_pylist(), after["text"].to_pylist()))
        torch.rand(7)  # loading a model draws too
        return {"fidelity": 0.5}

    what = tiny.experiment(optim={"steps": 2, "evaluate_every": 1})
    trial = tiny.trial(what, tmp_path)
    trial._asked = Asked(always=True, judges=(judge,))
    first, second = trial.reports()
    assert len(asked) == 1
    assert asked[0][0] == asked[0][1], "a side without augmentation was shown as if it changed something"
    assert first.metrics["text/fidelity"] == 0.5
    assert (first.metrics["text/changed"], first.metrics["text/self_bleu"]) == (0, pytest.approx(1))
    assert not any(name.startswith("text/") for name in second.metrics)
    plain = list(tiny.trial(what, tmp_path / "plain").reports())
    assert [r.metrics["train/loss"] for r in (first, second)] == [r.metrics["train/loss"] for r in plain]
    rows = tiny.rows(60, seed=1)
    idle = tiny.experiment(input={"augment": {"n_aug": 0, "policy": [[{"name": "random_deletion", "p": 0.9}]]}})
    assert of_copies(rows, idle, None, Asked(always=True))["text/changed"] == 0


@pytest.mark.slow
def test_a_real_language_model_finds_shuffled_words_less_natural() -> None:
    texts = ["This is one of the best films that I have seen in years.", "The story is dull, and the actors are tired."]
    shuffled = [
        "have This the films is years one best in seen I of that.",
        "dull are The, tired story and is actors the.",
    ]
    found = Perplexity("asset:smollm2-135m", "cpu")(table(texts), table(shuffled))
    assert found["perplexity_ratio"] > 5
