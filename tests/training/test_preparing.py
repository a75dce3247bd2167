"""Representation learning before fine-tuning: what a model learns from, what it costs, and where it is kept."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from bothways import assets, models, pretraining
from bothways.config import Experiment
from bothways.edges.local import OneWorker
from bothways.pretraining import prepared_weights, preparing
from bothways.registry import PREPARATIONS
from bothways.training.workspace import Workspace
from tests import tiny

MLM = {"name": "continued_pretraining", "steps": 4, "batch_size": 8, "lr": 1e-3}
SIMCSE = {"name": "semantic_representation", "steps": 3, "batch_size": 8, "lr": 1e-3}
TSDAE = SIMCSE | {"method": "tsdae"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is prepared is kept in the test's own folder."""
    monkeypatch.setenv("BOTHWAYS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


def prepared(*stages: dict[str, Any], data: Any = None, **parts: Any) -> preparing.Prepared | None:
    what = tiny.experiment(**{"model": {"prepare": stages}, **parts})
    bundle = Workspace().model(what.model.source, tiny.LABELS)
    return preparing.prepared(what, data or tiny.dataset(), bundle, OneWorker())


def test_nothing_is_learnt_from_selection_and_test_rows() -> None:
    data = tiny.dataset()
    leaked = pa.table({"text": data.test["text"].slice(0, 5), "pair": data.selection["text"].slice(0, 5)})
    own = pa.table({"text": pa.array(["own words"]), "pair": pa.array(["of a pair"])})
    found = pretraining.texts(replace(data, unlabelled=pa.concat_tables([own, leaked])))
    held = {*data.selection["text"].to_pylist(), *data.test["text"].to_pylist()}
    assert set(found) == {*data.train["text"].to_pylist(), "own words", "of a pair"} - held
    assert found == sorted(found)


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preparing, "SAY_S", 0.0)
    heard: list[str] = []
    workspace = Workspace()
    workspace.say = heard.append
    tiny.trial(tiny.experiment(model={"prepare": [MLM]}), tmp_path / "trial", workspace)
    assert heard == [f"continued_pretraining: step {step} of 4" for step in (1, 2, 3, 4)]


def test_no_steps_are_no_preparation_and_no_identity(tmp_path: Path) -> None:
    optim = {"steps": 3, "evaluate_every": 1}
    plain, none = (tiny.experiment(model={"prepare": stages}, optim=optim) for stages in ([], [MLM | {"steps": 0}]))
    assert prepared(MLM | {"steps": 0}) is None
    spec = plain.spec()
    assert spec["model"].pop("prepare") == []
    assert Experiment(**json.loads(json.dumps(spec))).digest == plain.digest != none.digest
    left, right = (
        [r.metrics["train/loss"] for r in tiny.trial(what, tmp_path / what.digest).reports()] for what in (plain, none)
    )
    assert left == right


@pytest.mark.parametrize(
    "stage",
    [MLM, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (SIMCSE, TSDAE))],
    ids=["mlm", "simcse", "tsdae"],
)
def test_a_result_is_kept_and_is_the_same_to_the_bit(stage: dict[str, Any], cache: Path) -> None:
    cold = prepared(stage)
    assert cold is not None
    (folder,) = (entry for entry in cache.iterdir() if entry.is_dir())
    (folder / "about.json").write_text((folder / "about.json").read_text().replace('"steps": ', '"steps": 1'), "utf-8")
    found = prepared(stage)
    assert found is not None
    assert found.records[0].steps == 10 + stage["steps"]  # it was read, not made
    (folder / "weights.safetensors").write_bytes(b"damaged")
    anew = prepared(stage)
    assert anew is not None
    for other in (found, anew):
        assert models.digest(other.weights) == models.digest(cold.weights)
    base = Workspace().model(tiny.model_dir(), tiny.LABELS).base
    assert set(cold.weights) <= set(base)
    assert any(not torch.equal(value, base[name]) for name, value in cold.weights.items())
    changed = prepared(stage, seed=9)
    assert changed is not None
    assert models.digest(changed.weights) != models.digest(cold.weights)


@pytest.mark.slow
def test_stages_follow_one_another_and_share_what_they_begin_with(cache: Path) -> None:
    both, first = prepared(MLM, SIMCSE), prepared(MLM)
    assert both is not None and first is not None
    assert both.records[0] == first.records[0]
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 2
    assert models.digest(both.weights) != models.digest(first.weights)
    alone = prepared(SIMCSE)
    assert alone is not None
    assert models.digest(alone.weights) != models.digest(both.weights)


def test_a_trial_starts_from_it_and_its_model_is_loaded_without_it(tmp_path: Path, cache: Path) -> None:
    what = tiny.experiment(
        model={"prepare": [MLM]}, output={"trainable": {"name": "head"}}, optim={"steps": 2, "evaluate_every": 1}
    )
    workspace = Workspace()
    trial = tiny.trial(what, tmp_path / "a", workspace)
    first, last = (report.metrics for report in trial.reports())
    assert first["cost/prepare_steps"] == 4
    assert first["time/prepare_s"] > 0
    assert {"prepare/0/first", "prepare/0/last"} <= set(first)
    assert not [name for name in last if "prepare" in name]
    start = prepared(MLM)
    assert start is not None
    trial.score_test()  # rounds the weights to what is saved
    trained = workspace.model(what.model.source, tiny.LABELS).module.state_dict()
    name = "bert.encoder.layer.0.output.dense.weight"
    assert (trained[name] - start.weights[name]).abs().max() < 1e-4
    saved = trial.save()
    for entry in cache.iterdir():
        if entry.is_dir():
            prepared_weights.shutil.rmtree(entry)
    bundle, about = models.load_saved(saved)
    assert about.experiment == what
    assert models.digest(bundle.module.state_dict()) == models.digest(trained)
    warm, cold = (tiny.trial(what, tmp_path / name, space) for name, space in (("b", workspace), ("c", Workspace())))
    assert [r.metrics["train/loss"] for r in warm.reports()] == [r.metrics["train/loss"] for r in cold.reports()]


@pytest.mark.slow
def test_room_is_made_for_what_is_new(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_weights, "KEPT_BYTES", 1)
    for seed in (1, 2):
        prepared(MLM | {"steps": 1}, seed=seed)
        assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1


def test_a_decoder_learns_its_next_tokens(cache: Path) -> None:
    found = prepared(
        MLM | {"steps": 25, "lr": 1e-2},
        model={"source": tiny.causal_lm_dir(), "prepare": [MLM | {"steps": 25, "lr": 1e-2}]},
    )
    assert found is not None
    assert found.records[0].last < found.records[0].first - 0.1
    assert all(name.startswith("transformer.") for name in found.weights)


class Second:
    """The second of two workers: what is summed is what the first one has."""

    rank, world = 1, 2

    def __init__(self, sent: list[torch.Tensor]) -> None:
        self._sent = iter(sent)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        assert not values.any()
        return next(self._sent)


class First(OneWorker):
    """The first of two: keeps what it gives."""

    world = 2

    def __init__(self) -> None:
        self.sent: list[torch.Tensor] = []

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.sent.append(values)
        return values


def test_the_other_workers_receive_what_the_first_one_has() -> None:
    what = tiny.experiment(model={"prepare": [MLM, SIMCSE]})
    bundle, first = Workspace().model(what.model.source, tiny.LABELS), First()
    mine = preparing.prepared(what, tiny.dataset(), bundle, first)
    theirs = preparing.prepared(what, tiny.dataset(), bundle, Second(first.sent))  # type: ignore[arg-type]
    assert mine is not None and theirs is not None
    assert models.digest(mine.weights) == models.digest(theirs.weights)
    assert mine.records == theirs.records


def _prepare(cache: str, spec: dict[str, Any], answers: Any) -> None:
    os.environ["BOTHWAYS_CACHE"] = cache
    torch.set_num_threads(1)
    what = Experiment(**spec)
    bundle = Workspace().model(what.model.source, tiny.LABELS)
    found = preparing.prepared(what, tiny.dataset(), bundle, OneWorker())
    assert found is not None
    answers.put((models.digest(found.weights), found.records[0].seconds))


@pytest.mark.slow
def test_processes_that_ask_at_once_compute_once(tmp_path: Path) -> None:
    spec = tiny.experiment(model={"prepare": [MLM | {"steps": 60}]}).spec()
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    both = [context.Process(target=_prepare, args=(str(tmp_path / "shared"), spec, answers)) for _ in range(2)]
    for process in both:
        process.start()
    first, second = (answers.get(timeout=200) for _ in both)
    for process in both:
        process.join(timeout=30)
    assert first == second  # the seconds too: there was one computation


@pytest.mark.slow
def test_the_loss_falls_on_real_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOTHWAYS_CACHE")
    from bothways import data
    from bothways.config import Data

    found = data.load(Data(source="asset:rotten_tomatoes", splits={"train": 400, "selection": 50, "test": 50}))  # type: ignore[arg-type]
    few = replace(found, unlabelled=found.unlabelled.slice(0, 200))
    what = Experiment(data={"source": "asset:rotten_tomatoes"}, model={"source": "asset:minilm-l3", "max_length": 32})  # type: ignore[arg-type]
    heard: list[float] = []
    record = preparing.language_model(
        what,
        few,
        PREPARATIONS.build(MLM | {"steps": 40, "lr": 3e-4}),
        torch.device("cpu"),
        tmp_path / "lm",
        lambda _, loss: heard.append(loss),
    )
    assert len(heard) == 40
    assert record.last < record.first - 0.1
    model, fast = AutoModelForMaskedLM.from_pretrained(tmp_path / "lm"), AutoTokenizer.from_pretrained(tmp_path / "lm")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert fast.mask_token_id == 103
    assert assets.root().exists()
