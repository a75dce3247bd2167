"""Labelled text: from files, assets and the hub to three splits without a row in common."""

from bothways.data.dataset import Dataset, folded, load

__all__ = ["Dataset", "folded", "load"]
