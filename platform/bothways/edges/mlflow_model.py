"""How MLflow loads a saved model: `models:/NAME@champion` in any process where bothways is installed.

No pickle is involved: the model is files, this module is named as their loader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bothways.predict import Predictor


class PyfuncModel:
    """MLflow's face of a `Predictor`."""

    def __init__(self, predictor: Predictor) -> None:
        self._predict = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Label and its probability for each row of `text` (and `pair`): a frame, or a list of texts."""
        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame({"text": list(model_input)})
        pairs = list(frame["pair"]) if "pair" in frame else None
        found = self._predict(list(frame["text"]), pairs)
        return pd.DataFrame(
            {"label": [p.label for p in found], "probability": [p.probability for p in found]},
            index=frame.index,
        )


def _load_pyfunc(path: str) -> PyfuncModel:
    return PyfuncModel(Predictor(Path(path)))
