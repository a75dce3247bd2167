"""Representation learning before fine-tuning: what is predicted from what, held against transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from bothways import pretraining
from bothways.errors import UserError
from bothways.input_side.language_modelling import scores
from bothways.input_side.preparation import Learner, TokenBatch
from bothways.input_side.prepare.continued_pretraining import corrupted, drawn_tokens
from bothways.input_side.transform import again
from bothways.models.language_models import Checkpoint, cut
from bothways.registry import PREPARATIONS
from bothways.seeding import keys, uniforms
from bothways.tokenization import Vocabulary, tokenizer
from tests import tiny

MLM = {"name": "continued_pretraining", "steps": 4, "batch_size": 8, "lr": 1e-3}
SIMCSE = {"name": "semantic_representation", "steps": 3, "batch_size": 8, "lr": 1e-3}
TSDAE = SIMCSE | {"method": "tsdae"}


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


def test_losses_are_those_of_plain_transformers_on_the_same_batch() -> None:
    batch = token_batch(16)
    stage = PREPARATIONS.build(MLM)
    masked, causal = tiny.masked_lm_dir(tuple(tiny.OTHER)), tiny.causal_lm_dir()
    for path in (masked, causal):
        learner: Learner = stage.learner(checkpoint(path))
        learner.module.eval()
        found = learner.loss(batch).item()
        if path == causal:
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
        assert sums["count"] == ((targets[:, 1:] if path == causal else targets) >= 0).sum()
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


def test_what_a_model_cannot_learn_is_said_in_a_line() -> None:
    for path, stage, said in (
        (tiny.causal_lm_dir(), SIMCSE, "set pooling to mean"),
        (tiny.model_dir("distilbert"), TSDAE, "no decoder of its family, distilbert"),
    ):
        with pytest.raises(UserError, match=said):
            PREPARATIONS.build(stage).learner(checkpoint(path))


def test_a_loss_that_is_not_finite_ends_the_preparation() -> None:
    broken = checkpoint(tiny.model_dir(), **{"embeddings.LayerNorm.weight": torch.full((16,), torch.inf)})
    corpus = pretraining.Corpus.of(tiny.dataset(), tiny.model_dir(), None, 24)
    stage = PREPARATIONS.build(MLM)
    with pytest.raises(UserError, match="not finite at step 1: lower its lr"):
        pretraining.learn(stage, stage.learner(broken), broken, corpus)


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
