"""A sweep's result as Markdown: for `result.md`, for MLflow, and for the terminal. Pure text out of `results`."""

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
            f"{result.trials} trials, {result.stopped} stopped early. Best on the selection rows: `{result.best}`.",
            "",
            *knobs,
            "",
            f"Both arms again, {seeds} fresh seeds, {result.steps} optimiser steps each, scored once on the test rows:",
            "",
            "| arm | trial | test accuracy by seed, % | mean [95 % interval] |",
            "|---|---|---|---|",
            *rows,
            "",
            result.sentence,
            "",
        ]
    )
