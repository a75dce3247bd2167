"""Word lists with candidates for substitution: WordNet and a Chinese thesaurus, built once, memory-mapped."""

from bothways.lexicons.frequencies import zipf
from bothways.lexicons.table import SynonymTable
from bothways.lexicons.tables import Glyphs, antonyms, close_synonyms, glyphs_zh, synonyms

__all__ = ["Glyphs", "SynonymTable", "antonyms", "close_synonyms", "glyphs_zh", "synonyms", "zipf"]
