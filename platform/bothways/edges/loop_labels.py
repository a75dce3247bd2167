"""The stage that asks for labels: which rows, and what somebody, or an oracle, has answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bothways import data
from bothways.assets.files import sha256
from bothways.data.duplicates import alike
from bothways.data.reading import Columns
from bothways.edges.loop_work import Done, OnReport, Waits, Work
from bothways.errors import UserError
from bothways.loop import label_files, references, results, stages
from bothways.loop.acquisition import Seen, suggest

ASKED, LABELLED = "to_label.csv", "labelled.csv"
"""The file that a person fills in, and all rows that have been labelled so far."""


def suggesting(
    stage: stages.SuggestLabels,
    model: tuple[Path, str],
    *,
    scored: Mapping[str, data.Dataset],
    before: Path | None,
    device: torch.device,
) -> Work:
    """The stage as work. `model`: its directory and what identifies it. `scored`: the data that the loop evaluates by,
    by digest. `before`: the rows that this stage has had labelled so far."""
    texts, paired = stage.texts, stage.texts.pair is not None
    rows = label_files.unlabelled(texts.source, texts.text, texts.pair)
    answers = None if stage.oracle is None else _answers(stage.oracle)
    own = Columns("text", _pair(paired), "label")
    earlier = [] if before is None else list(label_files.labelled(str(before), own))

    def do(directory: Path, on_report: OnReport) -> Done | Waits:
        from bothways.predict import Predictor

        file, by = directory / ASKED, Predictor(model[0], device)
        by.refuse_unless_classes(f"stage {stage.name!r}")
        if not file.exists():
            seen = Seen()
            seen.add((text, pair) for text, pair, _ in earlier)
            for dataset in scored.values():
                seen.add(label_files.texts_of(dataset, ("selection", "test")))
            found = suggest(by, seen.fresh(rows), stage.count, paired=paired, seed=stage.seed)
            if not found:
                raise UserError(f"stage {stage.name!r}: every text of {texts.source} is labelled or scored already")
            label_files.write(file, found, paired=paired)
        if answers is None:
            answered = label_files.answers(file, by.labels, paired=paired)
        else:
            asked = label_files.unlabelled(str(file), "text", _pair(paired))
            known = [(row, answers.get(alike(row.text, row.pair), "")) for row in asked]
            answered = [(row.text, row.pair, label) for row, label in known if label in by.labels]
        if not answered:
            if answers is not None:
                raise UserError(f"stage {stage.name!r}: the oracle knows none of the rows of {file}")
            return Waits(
                what=f"fill in the column label of {file} ({', '.join(by.labels[:10])}), then run the loop again"
            )
        label_files.write_labelled(directory / LABELLED, [*earlier, *answered], paired=paired)
        return Done(
            metrics={"new_rows": float(len(answered)), "labelled": float(len(earlier) + len(answered))},
            gives={"rows": LABELLED},
            identities={"rows": sha256(directory / LABELLED), "answers": sha256(file)},
        )

    def holds(directory: Path, result: results.Result) -> bool:
        """What somebody has filled in may change; what an oracle says does not."""
        return (directory / ASKED).exists() and sha256(directory / ASKED) == result.identities["answers"]

    about: dict[str, Any] = stage.model_dump(mode="json", exclude={"name", "then"})
    identity = {
        **about,
        "model": model[1],
        "texts": references.digest([[row.text, row.pair] for row in rows]),
        "answers": answers and references.digest(sorted((key.hex(), label) for key, label in answers.items())),
        "scored": sorted(scored),
        "before": earlier,
    }
    return Work(identity=identity, spec=about, do=do, holds=holds)


def _answers(oracle: stages.Oracle) -> dict[bytes, str]:
    """Text → label; texts that have two of them are not known."""
    known: dict[bytes, str] = {}
    columns = Columns(oracle.text, oracle.pair, oracle.label)
    for text, pair, label in label_files.labelled(oracle.source, columns, oracle.label_names):
        key = alike(text, pair)
        known[key] = label if known.get(key, label) == label else ""
    return known


def _pair(paired: bool) -> str | None:
    return "pair" if paired else None
