"""Representation learning before fine-tuning: what is predicted from what, held against transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForPreTraining

from bothways import pretraining
from bothways.errors import UserError
from bothways.input_side.language_modelling import drawn_tokens, scores
from bothways.input_side.permutation import factorised, spans_drawn
from bothways.input_side.preparation import NO_CLAIM, Learner, TokenBatch
from bothways.input_side.prepare.continued_pretraining import corrupted
from bothways.input_side.transform import again
from bothways.models.language_models import Checkpoint
from bothways.models.pruning import prune
from bothways.pretraining.reading import SentencePairs, split
from bothways.registry import PREPARATIONS
from bothways.seeding import keys, uniforms
from bothways.tokenization import Vocabulary, tokenizer
from tests import tiny

MLM = {"name": "continued_pretraining", "steps": 4, "batch_size": 8, "lr": 1e-3}
SIMCSE = {"name": "semantic_representation", "steps": 3, "batch_size": 8, "lr": 1e-3}
NSP = MLM | {"next_sentence": True}
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
    prune(model, kept)
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
        (tiny.model_dir("roberta"), NSP, "no head for it of the family roberta: set it to false"),
    ):
        with pytest.raises(UserError, match=said):
            PREPARATIONS.build(stage).learner(checkpoint(path))


def test_next_sentences_need_texts_of_several_sentences() -> None:
    corpus = pretraining.Corpus.of(tiny.dataset(), tiny.model_dir(), None, 24)
    with pytest.raises(UserError, match="texts of several sentences, and there are none"):
        corpus.rows(PREPARATIONS.build(NSP), checkpoint(tiny.model_dir()))


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


TOPICS = "good great lovely", "bad awful dull", "film story plot", "actor scene music"


def of_topics(count: int) -> list[str]:
    """Texts of one to three sentences, which go through the topics in their order."""
    draw = np.random.default_rng(4)
    texts = []
    for _ in range(count):
        topics = TOPICS[: draw.integers(1, 4)]
        texts.append(" ".join(f"The {' '.join(draw.choice(words.split(), 3))}." for words in topics))
    return sorted(set(texts))


def test_half_of_the_pairs_are_of_one_text_and_a_sentence_alone_claims_nothing() -> None:
    texts = of_topics(300)
    sentences, owner = split(texts)
    assert [" ".join(s for s, t in zip(sentences, owner, strict=True) if t == i) for i in range(len(texts))] == texts
    assert split(["好。很好！", "Mr. Smith ran. He won"])[0] == ["好。", "很好！", "Mr. Smith ran.", "He won"]
    pairs = SentencePairs(texts, 24, checkpoint(tiny.model_dir()))
    rows = np.arange(len(pairs.lengths))
    batch = pairs.batch(rows, keys("epoch", rows))
    assert batch.unrelated is not None and batch.types is not None
    assert abs((batch.unrelated == 1).sum() / (batch.unrelated != NO_CLAIM).sum() - 0.5) < 0.1
    assert ((batch.types.max(axis=1) == 0) == (batch.unrelated == NO_CLAIM)).all()
    plain = tokenizer(tiny.model_dir())
    known = {(a, b) for a, b, s, t in zip(sentences, sentences[1:], owner, owner[1:], strict=False) if s == t}
    natural = {tuple(plain(a, b)["input_ids"]) for a, b in known}
    found = [tuple(ids[real].tolist()) for ids, real in zip(batch.ids, batch.real, strict=True)]
    assert all(ids in natural for ids, is_other in zip(found, batch.unrelated, strict=True) if is_other == 0)
    assert np.mean([ids in natural for ids, u in zip(found, batch.unrelated, strict=True) if u == 1]) < 0.2
    part = pairs.batch(rows[5:9], keys("epoch", rows[5:9]))  # a row is the same in any batch
    for at in range(4):
        assert tuple(part.ids[at][part.real[at]].tolist()) == found[5 + at]


def test_the_loss_of_masks_and_next_sentences_is_that_of_plain_transformers() -> None:
    path = tiny.masked_lm_dir(tuple(" ".join(TOPICS).split()))
    learner: Learner = PREPARATIONS.build(NSP).learner(checkpoint(path))
    learner.module.eval()
    rows = np.arange(12)
    pairs = SentencePairs(of_topics(60), 24, checkpoint(path))
    batch = pairs.batch(rows, keys("t", rows))
    source, (drawn, bits) = checkpoint(path), drawn_tokens(batch, 0.15)
    assert source.mask_id is not None and batch.unrelated is not None
    read = corrupted(batch.ids, drawn, bits, source.mask_id, source.ordinary)
    plain = AutoModelForPreTraining.from_pretrained(path).eval()
    plain.load_state_dict(learner.module.state_dict())  # the head for sentences is new, and its own
    with torch.no_grad():
        expected = plain(
            **batch.with_ids(read).inputs("cpu"),
            labels=torch.from_numpy(np.where(drawn, batch.ids, -100)),
            next_sentence_label=torch.from_numpy(batch.unrelated),
        ).loss.item()
    assert learner.loss(batch).item() == pytest.approx(expected, abs=1e-5)
    sums = learner.measure(batch)
    assert sums["pairs"] == (batch.unrelated != NO_CLAIM).sum() > 0
    assert 0 <= sums["told"] <= sums["pairs"]


def test_a_permuted_token_sees_what_comes_before_it_and_never_itself() -> None:
    batch = token_batch()
    drawn, order = spans_drawn(batch, 1 / 6)
    assert not (drawn & batch.special).any() and drawn.any(axis=1).all()
    mask, mapping, labels = factorised(batch, 1 / 6).values()
    for row in (0, 5, 390):
        targets = np.flatnonzero(drawn[row])
        assert sorted(order[row][targets].tolist()) == sorted(set(order[row][targets].tolist()))
        for i in range(12):
            for j in range(12):
                hidden = j in targets and (i not in targets or order[row, i] <= order[row, j])
                assert mask[row, i, j] == hidden
        assert mapping[row].argmax(axis=1)[: len(targets)].tolist() == targets.tolist()
        assert labels[row][: len(targets)].tolist() == batch.ids[row][targets].tolist()
        assert (labels[row][len(targets) :] == -100).all()
    long = token_batch(50, 300)
    predicted = spans_drawn(long, 1 / 6)[0][:25]
    assert abs(predicted.mean() - 1 / 6) < 0.01
    spans = [len(run) for row in predicted for run in "".join(" x"[t] for t in row.tolist()).split()]
    assert set(spans) >= {1, 2, 3, 4, 5} and np.mean(np.array(spans) <= 5) > 0.9  # two may meet


def test_the_loss_of_permutations_is_that_of_plain_transformers() -> None:
    batch = token_batch(16)
    path = tiny.model_dir("xlnet")
    learner: Learner = PREPARATIONS.build(MLM).learner(checkpoint(path))
    learner.module.eval()
    arrays = {name: torch.from_numpy(array) for name, array in factorised(batch, 0.15).items()}
    plain = AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.no_grad():
        expected = plain(**batch.inputs("cpu"), **arrays).loss.item()
        assert learner.loss(batch).item() == pytest.approx(expected, abs=1e-5)
        cell = next((r, t) for r in range(16) for t in np.flatnonzero(spans_drawn(batch, 0.15)[0][r]))
        changed = batch.ids.copy()
        changed[cell] = changed[cell] + 1
        logits = [plain(**b.inputs("cpu"), **{k: v for k, v in arrays.items() if k != "labels"}).logits
                  for b in (batch, batch.with_ids(changed))]  # fmt: skip
    first = arrays["target_mapping"][cell[0], :, cell[1]].argmax()
    assert torch.equal(logits[0][cell[0], first], logits[1][cell[0], first])  # it does not see itself


@pytest.mark.slow
@pytest.mark.parametrize(("family", "stage"), [("bert", MLM), ("bert", NSP), ("gpt2", MLM), ("xlnet", MLM)])
def test_what_is_pretrained_learns(family: str, stage: dict[str, Any]) -> None:
    texts = of_topics(900)
    table = pa.table({"text": pa.array(texts), "pair": pa.nulls(len(texts), pa.string())})
    data = replace(tiny.dataset(), unlabelled=table)
    source = checkpoint(tiny.model_dir(family))
    corpus = pretraining.Corpus.of(data, source.path, None, 24)
    made = PREPARATIONS.build(stage | {"steps": 300, "batch_size": 16, "lr": 5e-3, "head_lr": 5e-3})
    losses: list[float] = []
    record = pretraining.learn(made, made.learner(source), source, corpus, lambda _, loss: losses.append(loss))
    first, *_, last = (float(np.mean(part)) for part in np.array_split(losses, 6))
    assert last < 0.7 * first
    assert record.last < 0.6 * record.first
    assert record.told > 0.6 if made.pairs else record.told == 0
