"""Every task's model: the loss is that of plain transformers, rows do not depend on their batch, and what is saved
loads without us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from torch import Tensor

from bothways import models
from bothways.batches.batching import Encode, collate, evaluation_views
from bothways.contracts import NO_LABEL, Batch
from bothways.data import Dataset
from bothways.errors import UserError
from bothways.output_side.trainable import head_parameters, names_of, stack
from bothways.predict import Predictor
from bothways.registry import OBJECTIVES, TASKS
from bothways.tokenization import Vocabulary
from bothways.training import ModelForward
from bothways.training.trial import Trial
from bothways.training.workspace import Workspace
from tests import tiny

WRITING = {"name": "seq2seq", "target_length": 5}, {"name": "causal_lm", "target_length": 4}
MODELS = [
    *(("t5", WRITING[0]), ("bart", WRITING[0]), ("bert", WRITING[0])),
    *(("gpt2", WRITING[1]), ("llama", WRITING[1]), ("roberta", WRITING[1])),
]
IDS = [f"{family}-{task['name']}" for family, task in MODELS]
ROWS = [("the film was good", "great"), ("a plot", "dull bad dull"), ("it was one very dull and awful story", "bad")]


def bundle_of(family: str, task: Any, dropout: float = 0.0) -> models.Bundle:
    bundle = models.load(tiny.model_dir(family), (), task=task)
    models.reset(bundle, labels=(), dropout=dropout, seed=3)
    return bundle


def batch_of(bundle: models.Bundle, task: Any, rows: list[tuple[str, str]]) -> Batch:
    encode = Encode(tokenizer_path=bundle.path, max_length=16, paired=False, task=task, start=bundle.start_id)
    texts, targets = zip(*rows, strict=True)
    table = pa.table(
        {
            "id": pa.array(range(len(rows)), pa.int64()),
            "text": pa.array(texts),
            "pair": pa.nulls(len(rows), pa.string()),
            "label": pa.array(targets),
        }
    )
    return collate(encode(evaluation_views(table)), bundle.pad_id)


def losses(bundle: models.Bundle, task: Any, batch: Batch) -> Tensor:
    found: Tensor = task.row_losses(ModelForward(bundle.module, bundle.module, "fp32")(batch), batch)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("family", "spec"), MODELS, ids=IDS)
def test_the_loss_is_that_of_transformers_and_of_the_row_alone(
    family: str, spec: dict[str, Any], tmp_path: Path
) -> None:
    task = TASKS.build(spec)
    bundle = bundle_of(family, task)
    batch = batch_of(bundle, task, ROWS)
    found = losses(bundle, task, batch)
    forward = ModelForward(bundle.module, bundle.module, "fp32")
    embedded = forward(batch, forward.embed(batch))
    assert torch.allclose(task.row_losses(embedded, batch), found, atol=1e-6)
    assert torch.allclose(torch.stack([losses(bundle, task, batch_of(bundle, task, [row]))[0] for row in ROWS]), found)
    bundle.module.save_pretrained(tmp_path)
    auto = getattr(transformers, task.architecture(()).auto[0])
    plain = auto.from_pretrained(tmp_path, attn_implementation="eager").eval()
    for row, expected in zip(ROWS, found, strict=True):
        one = batch_of(bundle, task, [row])
        inputs = {name: one.inputs[name] for name in ("input_ids", "attention_mask")}
        labels = one.labels
        if spec["name"] == "causal_lm":  # transformers shifts by itself
            labels = torch.cat([torch.full((1, 1), NO_LABEL), one.labels[:, :-1]], dim=1)
            assert torch.equal(labels[labels != NO_LABEL], one.inputs["input_ids"][labels != NO_LABEL])
        assert torch.allclose(plain(**inputs, labels=labels).loss, expected, atol=1e-6)


@pytest.mark.parametrize(("family", "spec"), MODELS, ids=IDS)
def test_training_computes_what_evaluation_does_and_reaches_every_parameter(family: str, spec: dict[str, Any]) -> None:
    task = TASKS.build(spec)
    bundle = bundle_of(family, task, dropout=1e-9)  # no element is dropped, but the way is that of training
    batch = batch_of(bundle, task, ROWS)
    evaluated = losses(bundle, task, batch)
    bundle.module.train()
    trained = losses(bundle, task, batch)
    assert torch.allclose(evaluated, trained, atol=1e-5)
    trained.mean().backward()
    assert [name for name, value in bundle.module.named_parameters() if value.grad is None] == []
    assert {id(value) for value in head_parameters(bundle.module)} < {id(v) for v in bundle.module.parameters()}


@pytest.mark.parametrize(("family", "spec"), MODELS[:4], ids=IDS[:4])
def test_of_the_tokens_that_are_kept_a_model_says_what_the_whole_one_says(family: str, spec: dict[str, Any]) -> None:
    task = TASKS.build(spec)
    kept = Vocabulary.of({0, *range(2, 40)} - {5})
    whole, small = (models.load(tiny.model_dir(family), (), vocabulary=what, task=task) for what in (None, kept))
    for bundle in (whole, small):
        models.reset(bundle, labels=(), dropout=0.0, seed=3)
    read, said = [2, 7, 30, 12, 3], [2, 8, 39]

    def logits(bundle: models.Bundle, new: Callable[[int], int]) -> Tensor:
        inputs = {"input_ids": torch.tensor([[*map(new, read)]])}
        if spec["name"] == "seq2seq":
            inputs["decoder_input_ids"] = torch.tensor([[*map(new, said)]])
        with torch.no_grad():
            found: Tensor = bundle.module.eval()(**inputs).logits
        return found

    assert torch.allclose(logits(small, kept.new), logits(whole, int)[..., kept.ids.tolist()], atol=1e-6)
    starts = [getattr(bundle.module.config, "decoder_start_token_id", None) for bundle in (whole, small)]
    assert starts[1] == (None if starts[0] is None else kept.new(starts[0]))
    every = len(whole.module.get_input_embeddings().weight)
    assert [name for name, value in small.module.named_parameters() if every in value.shape] == []


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_head_of_an_encoder_that_became_both_halves_is_what_is_new(family: str) -> None:
    bundle = bundle_of(family, TASKS.build(WRITING[0]))
    named = dict(bundle.module.named_parameters())
    new = [name for name in named if name not in bundle.base]
    assert names_of(bundle.module, head_parameters(bundle.module)) == new
    assert any("crossattention" in name for name in new) and not any("embeddings" in name for name in new)
    first, *others = stack(bundle.module)
    assert first == new and {*first, *(name for level in others for name in level)} == {*named}


def test_the_decoder_may_have_the_first_layers_of_the_encoder_only() -> None:
    task = TASKS.build({**WRITING[0], "decoder_layers": 2})
    bundle = bundle_of("bert", task)
    encoder, decoder = bundle.module.encoder.encoder.layer, bundle.module.decoder.bert.encoder.layer
    assert (len(encoder), len(decoder)) == (3, 2)
    own = {name: value for name, value in decoder.state_dict().items() if "crossattention" not in name}
    assert own and all(torch.equal(value, encoder.state_dict()[name]) for name, value in own.items())
    assert losses(bundle, task, batch_of(bundle, task, ROWS)).isfinite().all()
    assert "decoder_layers" not in TASKS.build(WRITING[0]).spec()
    for family, layers, message in (("bert", 4, "but it has 3 layers"), ("t5", 1, "leave task.decoder_layers out")):
        with pytest.raises(UserError, match=message):
            models.load(tiny.model_dir(family), (), task=TASKS.build({**WRITING[0], "decoder_layers": layers}))


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta"])
def test_a_decoder_does_not_see_what_it_has_to_say(family: str) -> None:
    task = TASKS.build(WRITING[1])
    bundle = bundle_of(family, task)
    one, other = (batch_of(bundle, task, [("the film", target)]) for target in ("good bad dull", "good bad great"))
    differ = (one.inputs["input_ids"] != other.inputs["input_ids"])[0].nonzero()[0, 0]
    forward = ModelForward(bundle.module, bundle.module, "fp32")
    assert differ >= 4
    assert torch.equal(forward(one)[0, :differ], forward(other)[0, :differ])
    assert not torch.allclose(forward(one)[0, differ], forward(other)[0, differ])


@pytest.mark.parametrize(("family", "spec"), [MODELS[1], MODELS[3]], ids=[IDS[1], IDS[3]])
@pytest.mark.parametrize("objective", ["rdrop", "label_smoothing", "adversarial"])
def test_objectives_of_classes_are_means_over_tokens_with_labels(
    objective: str, family: str, spec: dict[str, Any]
) -> None:
    task = TASKS.build(spec)
    bundle = bundle_of(family, task)
    forward = ModelForward(bundle.module.train(), bundle.module, "fp32")
    batch = batch_of(bundle, task, ROWS)
    knobs = {"rdrop": {"alpha": 2.0}, "label_smoothing": {"epsilon": 0.3}, "adversarial": {"lr": 0.2}}[objective]
    made = OBJECTIVES.build({"name": objective, **knobs})
    loss = made(forward, batch, task)
    alone = [made(forward, batch_of(bundle, task, [row]), task).total for row in ROWS]
    assert torch.allclose(loss.total, torch.stack(alone).mean(), atol=1e-5)
    if objective == "label_smoothing":
        logs = torch.log_softmax(forward(batch), dim=-1).detach().double().numpy()
        rows = []
        for row, labels in enumerate(batch.labels.numpy()):
            at = np.flatnonzero(labels != NO_LABEL)
            rows.append((-0.7 * logs[row, at, labels[at]] - 0.3 * logs[row, at].mean(axis=-1)).mean())
        assert float(loss.total.detach()) == pytest.approx(np.mean(rows), abs=1e-5)


def signal(text: str, _: int) -> str:
    return tiny.signal(text)


def tagged(text: str, _: int) -> list[dict[str, Any]]:
    """Every word, tagged by whether it tells the class."""
    found, at = [], 0
    for word in text.split():
        place = {"start": at, "stop": at + len(word), "label": int(word in tiny.GOOD + tiny.BAD)}
        found.append({**place, "begins": True, "keep": False})
        at += len(word) + 1
    return found


def placed(text: str, _: int) -> list[dict[str, int]]:
    start = text.index(tiny.signal(text))
    return [{"start": start, "stop": start + len(tiny.signal(text))}]


def question_and_text(data: Dataset) -> Dataset:
    tables = {}
    for name in ("train", "selection", "test"):
        table = getattr(data, name)
        table = table.set_column(table.column_names.index("pair"), "pair", table["text"])
        question = pa.array(["what is it"] * table.num_rows)
        tables[name] = table.set_column(table.column_names.index("text"), "text", question)
    return replace(data, **tables)


PLACE = [("start", pa.int64()), ("stop", pa.int64())]
TAG = pa.list_(pa.struct([*PLACE, ("label", pa.int64()), ("begins", pa.bool_()), ("keep", pa.bool_())]))
STEPS = {"steps": 60, "evaluate_every": 60, "lr": 0.01, "batch_size": 16}
AUGMENT = {"augment": {"n_aug": 1, "policy": [[{"name": "random_deletion", "p": 0.1}]]}}
CASES: dict[str, tuple[str, dict[str, Any], Any, pa.DataType, tuple[str, ...], str, float]] = {
    "multi_label": ("bert", {}, lambda t, c: [float(c), 1.0 - c], pa.list_(pa.float32()), ("a", "b"), "micro_f1", 0.8),
    "regression": ("distilbert", {"mean": 2, "scale": 4}, lambda t, c: 10.0 * c, pa.float64(), (), "pearson", 0.8),
    "token_classification": ("bert", {}, tagged, TAG, ("other", "signal"), "macro_f1", 0.9),
    "question_answering": ("bert", {}, placed, pa.list_(pa.struct(PLACE)), (), "f1", 0.5),
    "seq2seq": ("t5", {"target_length": 4, "generate": "always"}, signal, pa.string(), (), "rouge1", 0.5),
    "seq2seq-bert": ("bert", {"target_length": 4}, signal, pa.string(), (), "token_accuracy", 0.8),
    "causal_lm": ("gpt2", {"target_length": 4, "beams": 2}, signal, pa.string(), (), "token_accuracy", 0.55),
    "causal_lm-llama": ("llama", {"target_length": 4}, signal, pa.string(), (), "token_accuracy", 0.55),
}
OPTIM = {"seq2seq-bert": {**STEPS, "steps": 120, "evaluate_every": 120, "lr": 3e-3, "head_lr": 1e-2}}
"""Of those that learn otherwise: half of what is to be learnt is new, and every other token of a target is its end."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_task_from_data_to_a_model_that_plain_transformers_load(name: str, tmp_path: Path) -> None:
    family, knobs, make, kind, labels, metric, reached = CASES[name]
    optim, name = OPTIM.get(name, STEPS), name.partition("-")[0]
    task = {"name": name, **knobs}
    data = tiny.dataset_of(make, kind, labels)
    asks = name == "question_answering"
    parts: dict[str, Any] = {"data": {"pair": "pair"}} if asks else {}
    data = question_and_text(data) if asks else data
    experiment = tiny.experiment(family, task=task, model={"dropout": 0.0}, optim=optim, input=AUGMENT, **parts)
    trial = tiny.trial(experiment, tmp_path / "trial", data=data)
    (report,) = trial.reports()
    assert report.metrics[f"selection/{metric}"] > reached
    scored = trial.score_test()
    assert scored.metrics[metric] > reached
    assert len(scored.hits) == data.test.num_rows
    assert all(0 <= hit <= 1 for hit in scored.hits)

    saved, exported = trial.save(), tmp_path / "exported"
    models.export(saved, exported)
    texts = [data.test[column].to_pylist() for column in (("text", "pair") if asks else ("text",))]
    ours = Predictor(saved)(*texts)
    assert Predictor(exported)(*texts) == ours
    auto = experiment.task.architecture(labels).auto[0]
    plain = getattr(transformers, auto).from_pretrained(exported)
    bundle, _ = models.load_saved(saved)
    theirs, weights = plain.state_dict(), bundle.module.state_dict()
    assert {key.split(".")[1] for key in theirs.keys() ^ weights.keys()} <= {
        "pooler"
    }  # of an encoder that is read whole
    assert models.digest({key: theirs[key] for key in weights}) == models.digest(weights)
    if asks or experiment.task.writes:
        pairs = zip(ours, map(tiny.signal, texts[-1]), strict=True)
        assert np.mean([found.label == answer for found, answer in pairs]) == scored.metrics["exact_match"]
    if name == "token_classification":
        first = ours[0].value
        assert [texts[0][0][word["start"] : word["stop"]] for word in first] == texts[0][0].split()


@pytest.mark.slow
@pytest.mark.usefixtures("a_checkpoint_at_every_report")
def test_a_resumed_trial_that_writes_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    data = tiny.dataset_of(signal, pa.string())
    parts: dict[str, Any] = {"task": {"name": "seq2seq", "target_length": 4, "generate": "always"}, "input": AUGMENT}
    what = tiny.experiment("t5", **parts, optim={"steps": 8, "evaluate_every": 4})

    def trial(directory: str, workspace: Workspace) -> Trial:
        return tiny.trial(what, tmp_path / directory, workspace, data)

    def comparable(one: Trial) -> list[dict[str, float]]:
        return [{k: v for k, v in report.metrics.items() if not k.startswith("time/")} for report in one.history]

    warm = Workspace()
    other = tiny.experiment("t5", task={**parts["task"], "target_length": 3}, optim={"steps": 2})
    list(tiny.trial(other, tmp_path / "other", warm, data).reports())
    straight = trial("straight", warm)
    list(straight.reports())
    broken = trial("broken", Workspace())
    next(broken.reports())
    again = trial("broken", Workspace())
    assert [report.step for report in again.history] == [4]
    list(again.reports())
    assert comparable(again) == comparable(straight)
    assert again.score_test() == straight.score_test()
