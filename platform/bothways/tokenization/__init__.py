"""Texts to sub-word ids, whole tables at a time.

A *piece* is what stands between white space; where the tokenizer sets Chinese characters apart, each of those is a
piece too. Tokenizers of BERT's kind read every piece by itself, so a piece that was seen before is looked up: its ids
are the very ones the tokenizer gave. Whether a tokenizer is of that kind is read from its parts and then tried out; all
others read whole texts.
"""

from bothways.tokenization.encoder import Backend, Encoded, Encoder, backend, encoder, tokenizer
from bothways.tokenization.reader import ModelReader
from bothways.tokenization.vocabulary import Vocabulary, used

__all__ = ["Backend", "Encoded", "Encoder", "ModelReader", "Vocabulary", "backend", "encoder", "tokenizer", "used"]
