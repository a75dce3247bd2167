"""A found policy as a file of its own: written by a sweep, read to be shown, previewed and applied to other data.

```yaml
language: en
seed: 0
input: {reconstruct: [], augment: {n_aug: 2, policy: [[{name: random_swap, p: 0.1}]]}}
```

`input` is what stands under that name in a pipeline's experiment, and may be copied there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from bothways.config import Experiment, yaml_io
from bothways.config.shape import Path, shown
from bothways.errors import UserError, did_you_mean

KEYS = ("language", "seed", "input")


def text(experiment: Mapping[str, Any], origin: str) -> str:
    """The policy file of an experiment's spec. `origin`: one line on where it was found."""
    policy = {"language": experiment["data"]["language"], "seed": experiment["seed"], "input": experiment["input"]}
    head = [
        origin,
        "Look at it:  bothways policy preview policy.yaml --data reviews.csv",
        "Apply it:    bothways policy apply policy.yaml --data reviews.csv --out more.jsonl",
    ]
    return "".join(f"# {line}\n" for line in head) + yaml_io.dump(policy)


def load(path: str | FilePath) -> Experiment:
    """The experiment whose input side, language and seed a policy file states; everything else has its defaults.

    A pipeline file gives its own experiment. Raises `UserError`, one line for each problem.
    """
    document = yaml_io.read(path)
    data = document.data
    if isinstance(data, dict) and "experiment" in data:
        return yaml_io.load_pipeline(path).experiment
    if not isinstance(data, dict) or "input" not in data:
        raise UserError(f"{document.name}:1: neither a policy file, which has {', '.join(KEYS)}, nor a pipeline")
    for key in data:
        if key not in KEYS:
            raise UserError(f"{document.where((key,))}: unknown key {shown(key)}: {did_you_mean(key, KEYS)}")
    language = {"language": data["language"]} if "language" in data else {}
    spec = {"data": {"source": "", **language}, **{key: data[key] for key in ("seed", "input") if key in data}}

    def where(path: Path) -> str:
        return document.where(path[1:] if path[:1] == ("data",) else path)

    return yaml_io.checked(Experiment, spec, where, ("experiment",))
