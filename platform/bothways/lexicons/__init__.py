"""Word lists with candidates for substitution, and word vectors: built once, memory-mapped."""

from bothways.lexicons.embeddings import Neighbours, input_embeddings, neighbours
from bothways.lexicons.frequencies import zipf
from bothways.lexicons.table import SynonymTable
from bothways.lexicons.tables import Glyphs, antonyms, close_synonyms, glyphs_zh, synonyms
from bothways.lexicons.vectors import WordVectors, vectors

__all__ = [
    "Glyphs",
    "Neighbours",
    "SynonymTable",
    "WordVectors",
    "antonyms",
    "close_synonyms",
    "glyphs_zh",
    "input_embeddings",
    "neighbours",
    "synonyms",
    "vectors",
    "zipf",
]
