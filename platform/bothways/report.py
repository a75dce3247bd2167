"""A sweep's result as Markdown: for `result.md`, for MLflow, and for the terminal. Pure text out of `results`."""

from __future__ import annotations

from bothways.results import SweepResult

NO_SHARES = ("log_loss", "perplexity", "rmse", "mae", "pearson", "r2")
"""Metrics that are not written in per cent."""


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
                *(" · ".join(_number(name, score) for score in arm.scores[name]) for name in shown),
                f"{arm.test} |",
            ]
        )
        for arm in result.arms
    ]
    titles = [
        "arm",
        "trial",
        *(f"test {name} by seed{'' if name in NO_SHARES else ', %'}" for name in shown),
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


def _number(metric: str, value: float) -> str:
    return f"{value:.4g}" if metric in NO_SHARES else f"{100 * value:.1f}"
