"""A tokenizer that keeps what a corpus uses reads that corpus as before, and turns nothing else into unknown tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from bothways.errors import UserError
from bothways.tokenization import Vocabulary, encoder, tokenizer, used
from bothways.tokenization.vocabulary import pruned

TRAINED_ON = [
    "the film was good and the actors were better than the story",
    "unbelievable storytelling , believable people",
    "这家酒店的服务态度很好，房间也很干净。",
    "酒店的早餐不好，服务员的态度也不好。",
]
CORPUS = pa.chunked_array([["the story was believable", None, "酒店很干净"], ["服务不好 , good people"]])
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
ANY_TEXT = st.text("thefilmwasgoodbelivr ,，。酒店的服务态度很好不干净x字é", max_size=30)


def _finished(backend: Tokenizer) -> Tokenizer:
    ids = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return backend


def wordpiece() -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(TRAINED_ON, trainer)
    return _finished(backend)


def unigram() -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False, max_piece_length=6
    )
    backend.train_from_iterator(TRAINED_ON * 5, trainer)
    backend.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    return _finished(backend)


@functools.cache
def made(kind: str) -> tuple[Tokenizer, Tokenizer, Vocabulary]:
    """A tokenizer, the same with what `CORPUS` uses, and what that is."""
    makers: dict[str, Callable[[], Tokenizer]] = {"wordpiece": wordpiece, "unigram": unigram}
    whole = makers[kind]()
    vocabulary = used(whole, [CORPUS])
    return whole, pruned(whole, vocabulary), vocabulary


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_the_corpus_is_read_as_the_same_tokens_with_fewer_ids(kind: str) -> None:
    whole, small, vocabulary = made(kind)
    assert vocabulary.ids.size == small.get_vocab_size() < whole.get_vocab_size()
    texts = CORPUS.drop_null().to_pylist()
    for text in [*texts, tuple(texts[:2])]:
        before, after = (backend.encode(*([text] if isinstance(text, str) else text)) for backend in (whole, small))
        assert after.tokens == before.tokens
        assert vocabulary.ids[after.ids].tolist() == before.ids
        assert after.type_ids == before.type_ids


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
@settings(max_examples=100, deadline=None)
@given(text=ANY_TEXT)
def test_other_text_is_read_as_before_if_its_tokens_are_kept_and_else_in_shorter_pieces(kind: str, text: str) -> None:
    whole, small, vocabulary = made(kind)
    before, after = whole.encode(text), small.encode(text)
    if set(before.ids) <= set(vocabulary.ids.tolist()):
        assert after.tokens == before.tokens
    assert after.tokens.count("[UNK]") <= before.tokens.count("[UNK]")


def test_a_piece_that_no_single_characters_spell_is_kept() -> None:
    pieces = ["[UNK]", "a", "##a", "##bc", "##aa", "xy"]
    whole = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    vocabulary = used(whole, [pa.chunked_array([["a"]])])
    assert [pieces[number] for number in vocabulary.ids] == ["[UNK]", "a", "##a", "##bc", "xy"]
    small = pruned(whole, vocabulary)
    assert [small.encode(text).tokens for text in ("abc", "aaa", "xy")] == [["a", "##bc"], ["a", "##a", "##a"], ["xy"]]


def test_a_special_token_keeps_its_name_and_its_meaning() -> None:
    whole, small, vocabulary = made("unigram")
    for token in [*SPECIAL, "[MASK]"]:
        assert vocabulary.ids[small.token_to_id(token)] == whole.token_to_id(token)
    assert small.encode("good [MASK]").tokens == whole.encode("good [MASK]").tokens


def test_the_same_texts_give_the_same_vocabulary_in_any_order_and_whatever_truncation_is_set() -> None:
    whole, _, vocabulary = made("unigram")
    turned = pa.chunked_array([CORPUS.to_pylist()[::-1]])
    short = Tokenizer.from_str(whole.to_str())
    short.enable_truncation(3)
    short.enable_padding()
    assert used(whole, [turned]) == used(short, [CORPUS]) == vocabulary
    assert hash(used(whole, [turned])) == hash(vocabulary)


@pytest.mark.parametrize("model", [models.BPE(), models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")])
def test_a_tokenizer_without_shorter_pieces_to_fall_back_on_is_refused_with_the_way_out(model: models.Model) -> None:
    with pytest.raises(UserError, match=r"this model has (BPE|WordLevel): use whole$"):
        used(Tokenizer(model), [CORPUS])


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_the_encoder_of_a_directory_keeps_what_it_is_told_to(kind: str, tmp_path: Path) -> None:
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    whole, _, vocabulary = made(kind)
    PreTrainedTokenizerFast(tokenizer_object=whole, model_input_names=inputs, **names).save_pretrained(tmp_path)
    small = tokenizer(str(tmp_path), vocabulary)
    assert len(small) == vocabulary.ids.size
    assert (small.model_input_names, small.pad_token, small.unk_token) == (inputs, "[PAD]", "[UNK]")
    assert vocabulary.ids[small.pad_token_id] == tokenizer(str(tmp_path)).pad_token_id
    columns = (CORPUS, CORPUS)
    before, after = encoder(str(tmp_path))(24, *columns), encoder(str(tmp_path), vocabulary)(24, *columns)
    assert vocabulary.ids[after.ids.flatten().to_numpy()].tolist() == before.ids.flatten().to_pylist()
    assert after.types == before.types
    assert encoder(str(tmp_path), vocabulary).by_pieces == encoder(str(tmp_path)).by_pieces == (kind == "wordpiece")
