"""What contextual substitution puts where, beside what every transform has to hold."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
)

from bothways.config import Protect
from bothways.errors import UserError
from bothways.input_side import masked_lm as module
from bothways.input_side.augment import contextual_substitution as member
from bothways.input_side.augment.contextual_substitution import ContextualSubstitution, Units, Written
from bothways.input_side.masked_lm import candidates, masked_lm
from bothways.input_side.transform import InputContext
from bothways.seeding import keys
from bothways.text import IDEOGRAPH, LETTER
from tests import tiny

WORDS = ("film", "story", "good", "bad", "not", "7", "s", "a", "电", "影", "好", "坏", "不", "三", "看")
MODEL = tiny.masked_lm_dir(WORDS)


def changed(texts: list[str], knobs: dict[str, Any], **context: Any) -> list[str]:
    where = InputContext(slot="augment/0/0", **context)
    row_keys = keys(5, np.arange(len(texts)))
    return ContextualSubstitution(**{"model": MODEL, **knobs})(where.read(texts, row_keys), where).texts()


def test_words_become_whole_words_that_are_neither_themselves_nor_protected() -> None:
    texts = ["Film story goodly, not film's 7 stories"] * 10 + ["电影不好看三坏"] * 10
    for before, after in zip(texts, changed(texts, {"p": 1.0, "top_k": 0}), strict=True):
        old, new = (InputContext().read([text], keys(0)).tokens()[0] for text in (before, after))
        assert len(old) == len(new)
        for one, other in zip(old, new, strict=True):
            if one in {"not", "7", ",", "不", "三"}:
                assert one == other
            else:
                assert other.lower() in {"film", "story", "good", "bad", "a", "i", "电", "影", "好", "坏", "看"} - {
                    one.lower()
                }
                assert one[0].isupper() == other[0].isupper()


def test_unprotected_words_may_become_negators_and_numbers() -> None:
    free = Protect(negators=False, numbers=False)
    assert "不" in "".join(changed(["电影好"] * 60, {"p": 1.0, "top_k": 0}, protect=free))
    assert set(candidates(MODEL, LETTER, free).texts) == {"film", "story", "good", "bad", "not", "a", "i"}
    assert set(candidates(MODEL, IDEOGRAPH, Protect()).texts) == set("电影好坏看")


def test_the_masked_text_and_its_logits_are_those_of_plain_transformers() -> None:
    context = InputContext()
    texts = ["a film with unknown things, stories and [MASK] words", "the good", "电影好看" * 20]
    batch = context.read(texts, keys(np.arange(3)))
    lm, rng = masked_lm(MODEL), np.random.default_rng(0)
    taken = (rng.random(batch.free.size) < 0.4) & batch.free
    units = Units.of(batch, Written.of(batch), np.arange(3), taken, lm)
    ids, at = units.masked(lm.mask_id)
    assert sum(map(len, at)) == taken.sum() == units.tokens.size
    assert units.texts == [word for row, mine in zip(batch.tokens(), np.split(taken, batch.offsets[1:-1]), strict=True)
                           for word, one in zip(row, mine, strict=False) if one]  # fmt: skip
    words = candidates(MODEL, IDEOGRAPH, Protect())
    values, places = lm.best(lm.hidden(ids, at), words.ids, [[0]] * units.tokens.size, 0)
    plain, fast = AutoModelForMaskedLM.from_pretrained(MODEL).eval(), AutoTokenizer.from_pretrained(MODEL)
    expected = []
    for row, where in zip(ids, at, strict=True):
        assert (row[where] == fast.mask_token_id).all()
        with torch.no_grad():
            expected.append(plain(input_ids=torch.from_numpy(row)[None]).logits[0, where][:, words.ids].numpy())
    logits = np.take_along_axis(np.concatenate(expected), places, axis=1)
    mine = places != 0
    assert np.abs(values - logits)[mine].max() < 1e-5
    assert np.isneginf(values[~mine]).all()


@pytest.fixture(scope="module")
def several_characters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose pieces may cover several Chinese characters, as those of multilingual encoders do."""
    path = tmp_path_factory.mktemp("unigram")
    special = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    words = ["▁电影", "导演", "真的", "很", "好", "不好", "看", "▁film", "▁story", "ish", "▁", "▁好"]
    pieces = [(piece, 0.0) for piece in special] + [(word, -1.0 / len(word)) for word in words]
    backend = Tokenizer(models.Unigram(pieces, unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    backend.add_special_tokens(special)
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertForMaskedLM(config).save_pretrained(path)
    return str(path)


def test_characters_of_one_piece_are_replaced_together(several_characters: str) -> None:
    knobs = {"model": several_characters, "p": 1.0, "top_k": 0}
    assert set(candidates(several_characters, LETTER, Protect()).texts) == {"film", "story"}
    assert set(candidates(several_characters, IDEOGRAPH, Protect()).texts) == {"电影", "导演", "真的", "很", "好", "看"}
    texts = ["电影真的好看", "filmish film 导演", "导演不好看"] * 8
    for before, after in zip(texts, changed(texts, knobs), strict=True):
        assert after != before
        if before == texts[0]:  # 电影, 真的, 好 and 看
            whole = re.fullmatch(
                "(导演|真的|很|好|看)(电影|导演|很|好|看)(电影|导演|真的|很|看)(电影|导演|真的|很|好)", after
            )
            assert whole, after
        elif before == texts[1]:  # what goes on with a word begins none
            assert re.fullmatch("(film|story) story (电影|真的|很|好|看)", after), after
        else:  # a piece with a negator in it stays whole
            assert re.fullmatch("(电影|真的|很|好|看)不好(电影|导演|真的|很|好)", after), after


def test_likelier_words_come_more_often_at_a_low_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, words = masked_lm(MODEL), candidates(MODEL, LETTER, Protect())
    logits = np.linspace(3.0, 0.0, len(words.ids), dtype=np.float32)

    def best(self: Any, hidden: Any, columns: Any, refused: Any, count: int) -> Any:
        kept = count or len(columns)
        return np.tile(logits, (len(hidden), 1))[:, :kept], np.tile(np.arange(len(columns)), (len(hidden), 1))[:, :kept]

    monkeypatch.setattr(module.MaskedLm, "best", best)
    monkeypatch.setattr(module.MaskedLm, "hidden", lambda _, rows, at: torch.zeros(len(rows), 1))
    texts = ["bb"] * 2000

    def share(**knobs: Any) -> Any:
        found = changed(texts, {"p": 1.0, **knobs})
        return np.array([found.count(word) for word in words.texts]) / len(texts)

    for temperature in (0.5, 1.0, 2.0):
        expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        assert np.abs(share(temperature=temperature, top_k=0) - expected).max() < 0.04
    assert (share(top_k=2)[2:] == 0).all()
    assert lm.mask_id not in words.ids


def test_what_was_drawn_once_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["the film story", "a good film", "好电影"] * 5
    member._remembered.clear()
    first = changed(texts, {"p": 0.5})
    assert 0 < len(member._remembered) <= len(texts)
    monkeypatch.setattr(module.MaskedLm, "hidden", None)  # whoever computes now, fails
    assert changed(texts, {"p": 0.5}) == first
    assert changed(texts[3:9], {"p": 0.0}) == texts[3:9]
    monkeypatch.setattr(member, "CAPACITY", 2)
    changed(texts, {"p": 0.5})
    assert len(member._remembered) == 2


def test_a_model_without_a_head_says_how_to_get_one() -> None:
    with pytest.raises(ValidationError, match="bothways prepare"):
        ContextualSubstitution(p=0.3)
    for model, said in ((tiny.model_dir(), "bothways prepare"), ("/nowhere/x", "no such")):
        with pytest.raises(UserError, match=said):
            changed(["a film"], {"p": 1.0, "model": model})
    assert changed(["a film"], {"p": 0.0, "model": "/nowhere/x"}) == ["a film"]
    with pytest.raises(UserError, match="script"):
        changed(["好"], {"p": 1.0, "model": tiny.masked_lm_dir(("film", "story"))})
