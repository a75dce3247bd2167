"""Word lists with candidates for substitution: WordNet and a Chinese thesaurus, built once, memory-mapped."""

from bothways.lexicons.table import SynonymTable
from bothways.lexicons.tables import Glyphs, glyphs_zh, synonyms

__all__ = ["Glyphs", "SynonymTable", "glyphs_zh", "synonyms"]
