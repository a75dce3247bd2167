"""The quick forward computes what transformers computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from bothways import models
from bothways.models.fast_encoder import ATTENTION, attend, drop
from tests import tiny

FAMILIES = ["bert", "roberta", "distilbert"]
IDS = torch.tensor([[2, 5, 6, 9, 3, 0, 0], [2, 7, 8, 9, 11, 12, 3], [2, 3, 0, 0, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0]])


def both(family: str) -> tuple[nn.Module, nn.Module]:
    bundle = models.load(tiny.model_dir(family), tiny.LABELS)
    models.reset(bundle, labels=tiny.LABELS, dropout=0.0, seed=3)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny.model_dir(family), num_labels=2)
    plain.load_state_dict(bundle.module.state_dict())
    for part in plain.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return bundle.module, plain


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "full"])
def test_logits_and_gradients_are_those_of_transformers(family: str, mask: torch.Tensor) -> None:
    quick, plain = both(family)
    for module in (quick, plain):
        module.train()
        logits = module(input_ids=IDS, attention_mask=mask).logits
        nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1])).backward()
    names = [name for name, _ in plain.named_parameters()]
    gradients = zip(names, quick.parameters(), plain.parameters(), strict=True)
    for name, one, other in gradients:
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7, msg=lambda t, n=name: f"{n}: {t}")
    with torch.no_grad():
        found, wanted = (m.eval()(input_ids=IDS, attention_mask=mask).logits for m in (quick, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_the_last_layer_of_bert_works_for_the_first_token_only() -> None:
    quick, plain = both("bert")
    hidden = [module.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state for module in (quick, plain)]  # type: ignore[operator]
    assert [tuple(values.shape) for values in hidden] == [(3, 1, 16), (3, 7, 16)]
    torch.testing.assert_close(hidden[0], hidden[1][:, :1], rtol=1e-5, atol=1e-6)


def test_dropout_drops_the_rate_keeps_the_mean_and_follows_the_seed() -> None:
    torch.manual_seed(5)
    values = torch.ones(1000, 999)
    dropped = drop(values, 0.1)
    assert abs(float((dropped == 0).float().mean()) - 0.1) < 2e-3  # six standard deviations
    assert abs(float(dropped.mean()) - 1) < 2e-3
    assert abs(float(((dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)).float().mean()) - 0.01) < 1e-3  # neighbours
    torch.manual_seed(5)
    assert torch.equal(drop(values, 0.1), dropped)
    assert torch.equal(drop(values, 0.0), values)


def test_gradients_pass_where_values_pass() -> None:
    values = torch.ones(64, requires_grad=True)
    torch.manual_seed(0)
    dropped = drop(values, 0.5)
    dropped.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, dropped.detach())


def test_every_dropout_of_a_loaded_model_is_ours_in_training_and_off_in_evaluation() -> None:
    bundle = models.load(tiny.model_dir(), tiny.LABELS)
    models.reset(bundle, labels=tiny.LABELS, dropout=0.5, seed=3)
    assert bundle.module.config._attn_implementation == ATTENTION
    torch.manual_seed(1)
    first, second = (bundle.module.train()(input_ids=IDS, attention_mask=MASK).logits for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (bundle.module.eval()(input_ids=IDS, attention_mask=MASK).logits for _ in range(2))
    assert torch.equal(first, second)


def test_attention_with_dropout_has_the_mean_of_attention_without() -> None:
    torch.manual_seed(2)
    query, key, value = torch.randn(3, 1, 2, 5, 4).repeat_interleave(4000, dim=1)
    mask = torch.tensor([True, True, True, True, False])[None, None, None]
    module = nn.Module()
    dropped, _ = attend(module, query, key, value, mask, dropout=0.2)
    wanted, _ = attend(module, query[:1], key[:1], value[:1], mask)
    assert (dropped.std(dim=0) > 0).all()
    torch.testing.assert_close(dropped.mean(dim=0, keepdim=True), wanted, rtol=0, atol=0.05)
