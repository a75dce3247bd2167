"""Language models as small as they can be: random weights, but always the same."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

WORDS = [
    *("a", "the", "film", "story", "actor", "was", "is", "and", "very", "quite", "good", "great", "bad", "dull"),
    *("one", "music", "end", "line", "plot", "scene", "电影", "故事", "很", "好"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def encoder_dir(groups: Sequence[Sequence[str]], pieces: Sequence[str] = (), seed: int = 3) -> str:
    """A BERT whose input embeddings of the words of one group have a cosine of about 0.8, those of others none.

    `pieces`: further entries of its vocabulary, such as `##ing`.
    """
    path = Path(tempfile.mkdtemp(prefix="bothways-tiny-")) / "encoder"
    entries = [*SPECIAL, *pieces, *(word for group in groups for word in group)]
    backend = Tokenizer(models.WordPiece({entry: i for i, entry in enumerate(entries)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    config = BertConfig(
        vocab_size=len(entries), hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = BertModel(config)
        rows = model.get_input_embeddings().weight
        at = len(SPECIAL) + len(pieces)
        for group in groups:
            rows[at : at + len(group)] = torch.randn(64) + 0.5 * torch.randn(len(group), 64)
            at += len(group)
        model.save_pretrained(path)
    return str(path)


def _tokenizer(path: Path) -> None:
    """Words and full stops, each a token."""
    entries = ["<pad>", "</s>", "<unk>", ".", *WORDS]
    backend = Tokenizer(models.WordLevel({entry: i for i, entry in enumerate(entries)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(path)


@functools.cache
def seq2seq_dir(family: str = "t5", seed: int = 5) -> str:
    """An encoder-decoder: `t5` or `marian`."""
    path = Path(tempfile.mkdtemp(prefix="bothways-tiny-")) / family
    _tokenizer(path)
    size = 4 + len(WORDS)
    ids: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        if family == "t5":
            t5 = T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **ids)
            model: Any = T5ForConditionalGeneration(t5)
        else:
            layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
            heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 256}
            marian = MarianConfig(vocab_size=size, d_model=16, forced_eos_token_id=1, **layers, **heads, **ids)
            model = MarianMTModel(marian)
            model.final_logits_bias.normal_(0.0, 0.5)
        model.save_pretrained(path)
    return str(path)


@functools.cache
def causal_dir(seed: int = 5) -> str:
    """A decoder."""
    path = Path(tempfile.mkdtemp(prefix="bothways-tiny-")) / "causal"
    _tokenizer(path)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=4 + len(WORDS),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
        LlamaForCausalLM(config).save_pretrained(path)
    return str(path)
