"""Representation learning before fine-tuning: what a model learns from, what it costs, and where it is kept."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from bothways import assets, models, prepared_weights, preparing, pretraining
from bothways.config import Experiment
from bothways.edges.local import OneWorker
from bothways.errors import UserError
from bothways.input_side.language_modelling import scores
from bothways.input_side.preparation import Learner, TokenBatch
from bothways.input_side.prepare.continued_pretraining import corrupted, drawn_tokens
from bothways.input_side.transform import again
from bothways.language_models import Checkpoint, cut
from bothways.registry import PREPARATIONS
from bothways.seeding import keys, uniforms
from bothways.tokenization import Vocabulary, tokenizer
from bothways.trial import Workspace
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


def token_batch(rows: int = 400, width: int = 12) -> TokenBatch:
    """Rows of ids 10 to 40 between a [CLS] and a [SEP]; the second half is padded from position 7 on."""
    rng = np.random.default_rng(1)
    ids = rng.integers(10, 40, (rows, width))
    real = np.ones((rows, width), dtype=bool)
    real[rows // 2 :, 7:] = False
    ids[:, 0], ids[: rows // 2, -1], ids[rows // 2 :, 6] = 2, 3, 3
    ids[~real] = 0
    special = np.isin(ids, (0, 2, 3))
    return TokenBatch(ids=ids, real=real, special=special, keys=keys("t", np.arange(rows)), rows=np.arange(rows))


def checkpoint(path: str, vocabulary: Vocabulary | None = None, **weights: torch.Tensor) -> Checkpoint:
    return Checkpoint(
        name=path,
        path=path,
        vocabulary=vocabulary,
        device=torch.device("cpu"),
        seed=3,
        counts=np.zeros(len(tokenizer(path, vocabulary))),
        start=weights,
    )


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("gpt2")
    words = AutoTokenizer.from_pretrained(tiny.model_dir())
    words.save_pretrained(path)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = GPT2Config(vocab_size=len(words), n_embd=16, n_layer=2, n_head=2, n_positions=48, pad_token_id=0)
        GPT2LMHeadModel(config).save_pretrained(path)
    return str(path)


def test_masking_is_what_devlin_et_al_did_for_each_text_by_itself() -> None:
    batch = token_batch()
    drawn, bits = drawn_tokens(batch, 0.15)
    assert not (drawn & batch.special).any()
    assert drawn.any(axis=1).all()
    for row in (0, 17, 350):  # by hand: the j-th output of the row's own generator, read as a number in [0, 1)
        u = (bits[row] >> np.uint64(11)).astype(np.float64) * 2.0**-53
        expected = (u < 0.15) & ~batch.special[row]
        if not expected.any():
            expected[np.where(batch.special[row], 2.0, u).argmin()] = True
        assert (drawn[row] == expected).all()
    read = corrupted(batch.ids, drawn, bits, mask_id=4, ordinary=np.arange(5, 60))
    assert (read[~drawn] == batch.ids[~drawn]).all()
    how = uniforms(bits[drawn], "how")
    assert ((read[drawn] == 4) == (how < 0.8)).all()
    assert (read[drawn] == batch.ids[drawn])[how >= 0.9].all()
    assert np.isin(read[drawn], np.arange(4, 60)).all()
    assert abs((read == 4).sum() / drawn.sum() - 0.8) < 0.05
    assert again(bits[drawn], "token").std() > 0
    wider = TokenBatch(
        **{name: np.pad(getattr(batch, name), ((0, 0), (0, 5)), constant_values=name == "special")
           for name in ("ids", "real", "special")},
        keys=batch.keys, rows=batch.rows,
    )  # fmt: skip
    assert (drawn_tokens(wider, 0.15)[0][:, :12] == drawn).all()  # padding is nothing to a text
    later = drawn_tokens(replace(batch, keys=keys("another epoch", batch.keys)), 0.15)[0]
    assert (later != drawn).any(axis=1).mean() > 0.5


def test_losses_are_those_of_plain_transformers_on_the_same_batch(gpt2: str) -> None:
    batch = token_batch(16)
    stage = PREPARATIONS.build(MLM)
    masked = tiny.masked_lm_dir(tuple(tiny.OTHER))
    for path in (masked, gpt2):
        learner: Learner = stage.learner(checkpoint(path))
        learner.module.eval()
        found = learner.loss(batch).item()
        if path == gpt2:
            read, targets = batch.ids, np.where(batch.real, batch.ids, -100)
            plain = AutoModelForCausalLM.from_pretrained(path).eval()
        else:
            drawn, bits = drawn_tokens(batch, 0.15)
            source = checkpoint(path)
            assert source.mask_id is not None
            read = corrupted(batch.ids, drawn, bits, source.mask_id, source.ordinary)
            targets = np.where(drawn, batch.ids, -100)
            plain = AutoModelForMaskedLM.from_pretrained(path).eval()
        inputs = {"input_ids": read, "attention_mask": batch.real.astype(np.int64), "labels": targets}
        with torch.no_grad():
            expected = plain(**{name: torch.from_numpy(values) for name, values in inputs.items()}).loss.item()
        assert found == pytest.approx(expected, abs=1e-5)
        sums = learner.measure(batch)
        assert sums["count"] == ((targets[:, 1:] if path == gpt2 else targets) >= 0).sum()
        assert 0 <= sums["top1"] <= sums["top5"] <= sums["count"]


def test_likeliest_tokens_are_counted() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0]]).repeat(3, 1)
    found = scores(logits, torch.tensor([0, 4, 5]))
    assert (found["count"], found["top1"], found["top5"]) == (3, 1, 2)
    assert found["loss"] == pytest.approx(-logits.log_softmax(1)[0, [0, 4, 5]].sum().item())


def test_a_new_head_is_tied_to_the_embeddings_and_begins_at_the_frequencies() -> None:
    source = replace(checkpoint(tiny.model_dir()), counts=np.arange(231.0))
    learner = PREPARATIONS.build(MLM).learner(source)
    decoder = learner.module.get_output_embeddings()
    assert decoder.weight is learner.module.get_input_embeddings().weight
    assert decoder.bias.detach().exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert decoder.bias.detach().argmax() == 230
    assert learner.new and not any(name.startswith("bert.") for name in learner.new)


def test_a_cut_vocabulary_gives_the_whole_ones_logits_for_what_is_kept() -> None:
    path = tiny.masked_lm_dir(tuple(tiny.OTHER))
    kept = Vocabulary.of([0, 1, 2, 3, 4, 7, 9, 12, 20])
    whole, model = (AutoModelForMaskedLM.from_pretrained(path).eval() for _ in range(2))
    with torch.no_grad():
        for each in (whole, model):
            each.cls.predictions.bias.copy_(torch.arange(len(each.cls.predictions.bias)))
    cut(model, kept)
    old = torch.tensor([[2, 7, 20, 4, 3]])
    new = torch.tensor([[kept.new(number) for number in old[0].tolist()]])
    with torch.no_grad():
        expected, found = whole(old).logits[..., kept.ids.tolist()], model(new).logits
    assert torch.allclose(found, expected, atol=1e-6)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.cls.predictions.bias is model.get_output_embeddings().bias


def test_nothing_is_learnt_from_selection_and_test_rows() -> None:
    data = tiny.dataset()
    leaked = pa.table({"text": data.test["text"].slice(0, 5), "pair": data.selection["text"].slice(0, 5)})
    own = pa.table({"text": pa.array(["own words"]), "pair": pa.array(["of a pair"])})
    found = pretraining.texts(replace(data, unlabelled=pa.concat_tables([own, leaked])))
    held = {*data.selection["text"].to_pylist(), *data.test["text"].to_pylist()}
    assert set(found) == {*data.train["text"].to_pylist(), "own words", "of a pair"} - held
    assert found == sorted(found)


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


@pytest.mark.parametrize(
    ("family", "stage", "said"),
    [
        ("gpt2", SIMCSE, "pooling"),
        ("distilbert", TSDAE, "decoder"),
        ("bert", MLM | {"lr": 1.0, "steps": 60, "head_lr": 1.0}, ""),
    ],
)
def test_what_cannot_be_is_said_in_a_line(family: str, stage: dict[str, Any], said: str, gpt2: str) -> None:
    if not said:  # far too high a rate need not diverge: then it ends
        with torch.no_grad():
            broken = checkpoint(tiny.model_dir(), **{"embeddings.LayerNorm.weight": torch.full((16,), torch.inf)})
            corpus = pretraining.Corpus.of(tiny.dataset(), tiny.model_dir(), None, 24)
        with pytest.raises(UserError, match="not finite at step 1: lower its lr"):
            pretraining.learn(PREPARATIONS.build(stage), PREPARATIONS.build(stage).learner(broken), broken, corpus)
        return
    source = checkpoint(gpt2 if family == "gpt2" else tiny.model_dir(family))
    with pytest.raises(UserError, match=said):
        PREPARATIONS.build(stage).learner(source)


def test_a_decoder_learns_its_next_tokens(gpt2: str, cache: Path) -> None:
    found = prepared(
        MLM | {"steps": 25, "lr": 1e-2}, model={"source": gpt2, "prepare": [MLM | {"steps": 25, "lr": 1e-2}]}
    )
    assert found is not None
    assert found.records[0].last < found.records[0].first - 0.1
    assert all(name.startswith("transformer.") for name in found.weights)


def test_two_views_of_a_text_and_not_of_its_repetition(tmp_path: Path) -> None:
    """InfoNCE by hand: without dropout, and with one text twice in the batch."""
    batch = replace(token_batch(6), rows=np.array([0, 1, 2, 3, 4, 0]))
    learner = PREPARATIONS.build(SIMCSE | {"pooling": "mean", "temperature": 0.1}).learner(checkpoint(tiny.model_dir()))
    learner.module.eval()
    inputs = batch.inputs("cpu")
    with torch.no_grad():
        hidden = learner.body(**inputs).last_hidden_state
        found = learner.loss(batch).item()
    expected = []
    vectors = [hidden[row][batch.real[row]].mean(dim=0) for row in range(6)]
    for row in range(6):
        others = [other for other in range(6) if other == row or batch.rows[other] != batch.rows[row]]
        cosines = [float(torch.cosine_similarity(vectors[row], vectors[other], dim=0)) / 0.1 for other in others]
        expected.append(np.log(np.exp(cosines).sum()) - cosines[others.index(row)])
    assert found == pytest.approx(np.mean(expected), abs=1e-4)


def test_deletion_leaves_some_of_every_text_in_order_and_the_decoder_shares_the_encoder() -> None:
    batch = token_batch(40)
    learner: Any = PREPARATIONS.build(TSDAE).learner(checkpoint(tiny.model_dir()))
    left = learner._left(batch)
    for row in range(40):
        before = [n for n, special in zip(batch.ids[row].tolist(), batch.special[row], strict=True) if not special]
        after = [n for n in left.ids[row][left.real[row]].tolist() if n not in (2, 3)]
        rest = iter(before)
        assert len(after) >= 1 and all(number in rest for number in after)
    kept = (left.real.sum() - 80) / (batch.real.sum() - 80)
    assert abs(kept - 0.4) < 0.1
    encoder, decoder = learner.module
    for name, value in encoder.named_parameters():
        if not name.startswith("pooler"):
            assert decoder.base_model.get_parameter(name) is value
    assert decoder.get_output_embeddings().weight is encoder.get_input_embeddings().weight
    assert any("crossattention" in name for name in learner.new)
    assert not any(name.startswith("1.bert.embeddings") for name in learner.new)


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
