"""Language models as small as they can be: random weights, but always the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

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
