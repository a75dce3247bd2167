"""A sweep's result as Markdown: for `result.md`, for MLflow, and for the terminal."""

from __future__ import annotations

from bothways.results import SweepResult


def markdown(result: SweepResult) -> str:
    """The arms' table, what was found, and the one honest sentence."""
    seeds = len(result.arms[0].scores)
    rows = [
        f"| {arm.name} | `{arm.trial_id}` | {' · '.join(f'{100 * s:.1f}' for s in arm.scores)} | {arm.test} |"
        for arm in result.arms
    ]
    knobs = [f"- `{path}`: {value}" for path, value in result.knobs.items()]
    return "\n".join(
        [
            f"# {result.sweep}",
            "",
            f"{result.trials} trials, {result.stopped} of them stopped early. Best on the selection rows: `{result.best}`.",
            "",
            *knobs,
            "",
            f"Each arm trained again with {seeds} fresh seeds, {result.steps} optimiser steps each, test rows scored once:",
            "",
            "| arm | trial | test accuracy by seed, % | mean [95 % interval] |",
            "|---|---|---|---|",
            *rows,
            "",
            result.sentence,
            "",
        ]
    )
