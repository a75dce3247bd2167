"""A sweep's result as Markdown: for `result.md`, for MLflow, and for the terminal. Pure text out of `results`."""

from __future__ import annotations

from bothways.results import SweepResult


def markdown(result: SweepResult) -> str:
    """The arms' table, what was found, and the one honest sentence."""
    scores = result.arms[0].scores
    seeds = len(next(iter(scores.values())))
    first = "accuracy" if "accuracy" in scores else result.metric
    others = [result.metric] if result.metric in scores and result.metric != first else []
    shown = [name for name in [first, *others] if name in scores]
    rows = [
        " | ".join(
            [
                f"| {arm.name} | `{arm.trial_id}`",
                *(" · ".join(f"{100 * score:.1f}" for score in arm.scores[name]) for name in shown),
                f"{arm.test} |",
            ]
        )
        for arm in result.arms
    ]
    titles = [
        "arm",
        "trial",
        *([f"test {first} by seed, %"] if first in scores else []),
        *(f"{name}, %" for name in others),
        f"{result.score} [95 % interval]",
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
            f"Trained again with {seeds} fresh seed{'s' * (seeds > 1)}, {result.steps} optimiser steps each, "
            "scored once on the test rows:",
            "",
            f"| {' | '.join(titles)} |",
            "|---" * len(titles) + "|",
            *rows,
            "",
            result.sentence,
            "",
        ]
    )
