"""Which parameters move and how, for encoders, decoders and both; and that nothing is left of it afterwards."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
)

from bothways import models
from bothways.contracts import Move
from bothways.errors import UserError
from bothways.output_side.trainable import head_parameters, layers, names_of, stack
from bothways.registry import TRAINABLES
from bothways.training.workspace import Workspace
from tests import tiny

FAMILIES = ["bert", "roberta", "distilbert"]
HEADS = {
    "bert": {"bert.pooler.dense", "classifier"},
    "roberta": {"classifier.dense", "classifier.out_proj"},
    "distilbert": {"pre_classifier", "classifier"},
}
EVERY: list[dict[str, Any]] = [
    *({"name": name} for name in TRAINABLES.names()),
    {"name": "gradual_unfreezing", "every": 1, "factor": 0.5},
    {"name": "lora", "targets": "linear", "dropout": 0.2, "r": 2},
]


def moving(family: str, **spec: Any) -> tuple[dict[str, Move], set[str]]:
    """The parameters that move, and the names of all."""
    module = models.load(tiny.model_dir(family), tiny.LABELS).module
    every = dict(module.named_parameters())
    with TRAINABLES.build(spec)(module) as moves:
        assert set(moves) == {name for name, value in module.named_parameters() if value.requires_grad}
        return dict(moves), set(every)


def of_layers(names: set[str]) -> set[str]:
    return {name.split("layer.")[1].split(".")[0] for name in names if ".layer." in name}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_what_moves(family: str) -> None:
    full, every = moving(family, name="full")
    assert set(full) == every
    head = set(moving(family, name="head")[0])
    assert {name.rpartition(".")[0] for name in head} == HEADS[family]
    for n in (1, 2):
        found = set(moving(family, name="last_n", n=n)[0])
        assert of_layers(found) == {"0", "1", "2"} - {str(layer) for layer in range(3 - n)}
        assert {name for name in found if ".layer." not in name} == head
    lora = set(moving(family, name="lora")[0])
    assert lora - {name for name in lora if ".lora_" in name} == head
    assert len(lora - head) == 3 * 2 * 2, "A and B for query and value of three layers"
    assert len(set(moving(family, name="lora", targets="linear")[0]) - head) == 3 * 2 * 6


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_has_its_rate_and_its_first_step(family: str) -> None:
    found, every = moving(family, name="gradual_unfreezing", every=7, factor=0.5)
    rates, _ = moving(family, name="layerwise_lr_decay", factor=0.5)
    assert set(found) == every
    for name, move in found.items():
        if name.rpartition(".")[0] in HEADS[family]:
            depth = 0
        elif ".layer." in name:
            depth = 3 - int(name.split("layer.")[1].split(".")[0])
        else:
            assert "embeddings" in name
            depth = 4
        assert move == Move(rate=0.5**depth, since=7 * depth)
        assert rates[name] == Move(rate=0.5**depth)


def test_more_layers_than_there_are_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="n = 7, but the encoder has 3 layers"):
        moving("bert", name="last_n", n=7)


# -- in training -------------------------------------------------------------------------------------------------


OPTIM = {"steps": 8, "evaluate_every": 2, "batch_size": 4, "lr": 0.01, "weight_decay": 0.1}


def weights(workspace: Workspace, family: str) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in workspace.model(tiny.model_dir(family), tiny.LABELS).module.state_dict().items()}


def traces(module: nn.Module) -> Any:
    """Which objects a model is made of, and what they hold."""
    parameters = {name: id(value) for name, value in module.named_parameters()}
    return list(module.state_dict()), parameters, {n: (id(p), set(vars(p))) for n, p in module.named_modules()}


@functools.cache
def used(family: str) -> Workspace:
    """In which each test leaves what the next one must not see."""
    return Workspace()


def cases() -> list[Any]:
    found = [(spec, family) for family in FAMILIES for spec in EVERY]
    quick = [("lora", "bert", 5), ("gradual_unfreezing", "bert", 3)]
    return [
        pytest.param(
            *case,
            id="-".join([case[1], *map(str, case[0].values())]),
            marks=[]
            if (case[0]["name"], case[1], len(case[0]) + bool(case[0].get("r"))) in quick
            else pytest.mark.slow,
        )
        for case in found
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "family"), cases())
def test_training_moves_that_and_leaves_no_trace_and_can_be_interrupted(
    spec: dict[str, Any], family: str, tmp_path: Path
) -> None:
    what = tiny.experiment(family, output={"trainable": spec}, optim=OPTIM)
    warm, cold = used(family), Workspace()
    bundle = warm.model(tiny.model_dir(family), tiny.LABELS)
    before = traces(bundle.module)
    list(tiny.trial(what, tmp_path / "straight", warm).reports())
    assert traces(bundle.module) == before

    result = weights(warm, family)
    moves = {
        name.split(".lora_")[0] + ".weight" * (".lora_" in name): m for name, m in moving(family, **spec)[0].items()
    }
    changed = {name for name, base in bundle.base.items() if not torch.equal(result[name], base)}
    assert changed <= {name for name, move in moves.items() if move.since < 8}
    for names in stack(bundle.module):
        expected = [name for name in names if name in moves and moves[name].since < 8 and name in bundle.base]
        assert bool(changed & set(names)) == bool(expected)

    broken = tiny.trial(what, tmp_path / "broken", cold)
    for report in broken.reports():
        if report.step == 4:
            broken.checkpoint()
            break
    again = tiny.trial(what, tmp_path / "broken", cold)
    assert [report.step for report in again.reports()] == [6, 8]
    assert models.digest(weights(cold, family)) == models.digest(result), "interrupted, and in a process that was used"


def test_a_layer_that_thaws_begins_with_no_moments_and_has_not_decayed(tmp_path: Path) -> None:
    workspace = Workspace()
    spec = {"name": "gradual_unfreezing", "every": 2}
    what = tiny.experiment(output={"trainable": spec}, optim={**OPTIM, "evaluate_every": 1, "schedule": "constant"})
    bundle = workspace.model(tiny.model_dir(), tiny.LABELS)
    trial = tiny.trial(what, tmp_path, workspace)
    for report in trial.reports():
        now = bundle.module.state_dict()
        moved = [
            any(name in bundle.base and not torch.equal(now[name], bundle.base[name]) for name in names)
            for names in stack(bundle.module)
        ]
        assert moved == [depth * 2 < report.step for depth in range(5)]
        assert trial._progress is not None
        state = trial._progress.state()["moments"]["algorithm"]["state"]
        steps = {int(value["step"]) for value in state.values()}
        assert steps == {report.step - 2 * depth for depth in range(5) if depth * 2 < report.step}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradual_unfreezing", "layerwise_lr_decay"])
def test_the_neutral_setting_is_full_fine_tuning_to_the_last_bit(name: str, tmp_path: Path) -> None:
    found = []
    for spec in ({"name": "full"}, {"name": name, **TRAINABLES.get(name).neutral}):
        list(tiny.trial(tiny.experiment(output={"trainable": spec}), tmp_path / spec["name"], used("bert")).reports())
        found.append(models.digest(weights(used("bert"), "bert")))
    assert found[0] == found[1]


def test_a_step_of_plain_gradient_descent_is_as_long_as_a_layers_rate_says(tmp_path: Path) -> None:
    optim = {
        "steps": 1,
        "algorithm": "sgd",
        "momentum": 0.0,
        "warmup": 0,
        "clip_norm": None,
        "weight_decay": 0,
        "lr": 1,
    }
    steps = []
    for spec in ({"name": "full"}, {"name": "layerwise_lr_decay", "factor": 0.5}):
        what = tiny.experiment(model={"dropout": 0.0}, output={"trainable": spec}, optim=optim)
        trial = tiny.trial(what, tmp_path / spec["name"], used("bert"))
        start = weights(used("bert"), "bert")
        list(trial.reports())
        steps.append({name: value - start[name] for name, value in weights(used("bert"), "bert").items()})
    full, decayed = steps
    for depth, names in enumerate(stack(used("bert").model(tiny.model_dir(), tiny.LABELS).module)):
        assert any(full[name].abs().max() > 1e-6 for name in names)
        for name in names:
            torch.testing.assert_close(decayed[name], full[name] * 0.5**depth, rtol=1e-3, atol=1e-7)


def test_a_model_with_adapters_predicts_what_the_plain_one_predicts_that_they_become() -> None:
    module = models.load(tiny.model_dir(), tiny.LABELS).module.eval()
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 9, 3]])
    with torch.no_grad():
        plain = module(input_ids=ids).logits
        with TRAINABLES.build({"name": "lora", "r": 3, "alpha": 6})(module) as moves:
            torch.testing.assert_close(module(input_ids=ids).logits, plain, msg="B is zero at the start")
            adapters = {name: value for name, value in module.named_parameters() if ".lora_" in name}
            assert set(adapters) < set(moves)
            for value in adapters.values():
                value.normal_()
            adapted = module(input_ids=ids).logits
            name = "bert.encoder.layer.0.attention.self.query"
            learnt = adapters[f"{name}.lora_B.default.weight"] @ adapters[f"{name}.lora_A.default.weight"]
        assert (adapted - plain).abs().max() > 1e-3
        torch.testing.assert_close(module(input_ids=ids).logits, adapted, rtol=1e-4, atol=1e-5)
        base = models.load(tiny.model_dir(), tiny.LABELS).base[f"{name}.weight"]
        torch.testing.assert_close(module.get_parameter(f"{name}.weight") - base, 6 / 3 * learnt, rtol=1e-4, atol=1e-5)


# -- decoders, and encoders with decoders ----------------------------------------------------------------------------

T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2, "vocab_size": 50}
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 50, "n_positions": 32, "pad_token_id": 0}
BART = {
    **{"d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "vocab_size": 50},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "tie_word_embeddings": False},
}
MODELS: dict[str, Any] = {
    "T5 that writes": lambda: T5ForConditionalGeneration(T5Config(**T5, decoder_start_token_id=0)),
    "T5 that labels": lambda: T5ForSequenceClassification(T5Config(**T5, decoder_start_token_id=0, eos_token_id=1)),
    "BART with a head": lambda: BartForConditionalGeneration(BartConfig(**BART)),
    "GPT-2 that writes": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "GPT-2 that labels": lambda: GPT2ForSequenceClassification(GPT2Config(**GPT2)),
}
OTHER_HEADS = {
    "T5 that writes": set(),
    "T5 that labels": {"classification_head"},
    "BART with a head": {"lm_head"},
    "GPT-2 that writes": set(),
    "GPT-2 that labels": {"score"},
}


@pytest.mark.parametrize("name", MODELS)
def test_decoders_have_their_layers_and_heads_in_order(name: str) -> None:
    model = MODELS[name]()
    found = layers(model)
    kinds = [*["encoder"] * 2, *["decoder"] * 3] if "GPT" not in name else ["h"] * 3
    paths = {id(part): path for path, part in model.named_modules()}
    assert all(kind in paths[id(layer)].split(".") for kind, layer in zip(kinds, found, strict=True))
    heads = names_of(model, head_parameters(model))
    assert {head.split(".")[0] for head in heads} == OTHER_HEADS[name]
    levels = stack(model)
    assert sorted(n for names in levels for n in names) == sorted(n for n, _ in model.named_parameters())
    assert len(levels) == len(found) + 1 + bool(heads)
    assert all("wte" in n or "wpe" in n or "shared" in n or "embed" in n for n in levels[-1])
    final = [n for names in levels[bool(heads) : bool(heads) + 1] for n in names]
    assert any(n in " ".join(final) for n in ("ln_f", "decoder.final_layer_norm", "decoder.layers.2"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: "-".join(map(str, spec.values())))
def test_every_trainable_serves_decoders_too(name: str, spec: dict[str, Any]) -> None:
    model = MODELS[name]()
    before = traces(model)
    if spec["name"] == "head" and not OTHER_HEADS[name]:
        with pytest.raises(UserError, match="has no such parameters"), TRAINABLES.build(spec)(model):
            pass
        return
    ids = torch.tensor([[5, 6, 1], [7, 9, 1]])
    inputs = {"input_ids": ids} | ({"labels": ids} if "labels" not in name else {})
    with TRAINABLES.build(spec)(model) as moves:
        assert any(move.since == 0 for move in moves.values())
        model(**inputs).logits.square().mean().backward()
        without = {n for n, value in model.named_parameters() if value.requires_grad and value.grad is None}
        assert without <= {"model.shared.weight"}, "which BART does not read when its embeddings are not tied"
        assert {n for n, value in model.named_parameters() if value.grad is not None} | without == set(moves)
        model.zero_grad()
    assert traces(model) == before
