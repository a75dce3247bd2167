"""A sweep's result as Markdown: for `result.md`, for MLflow, and for the terminal. Pure text out of `results`."""

from __future__ import annotations

from bothways.results import SweepResult

NO_SHARES = ("log_loss", "perplexity", "rmse", "mae", "pearson", "r2", "mcc", "auroc")
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
                *(" · ".join(_score(name, score) for score in arm.scores[name]) for name in shown),
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
            *_front_lines(result),
        ]
    )


def front(result: SweepResult) -> str:
    """The Pareto front, tab-separated."""
    return "".join("\t".join(cells) + "\n" for cells in _front_cells(result))


def _front_lines(result: SweepResult) -> list[str]:
    if not result.front:
        return []
    titles, *rows = (f"| {' | '.join(cells)} |" for cells in _front_cells(result))
    many = len(rows) > 1
    about = f"{len(rows)} trial{'s' * many} that no other one is as good as in all objectives and better in one:"
    return [about, "", titles, "|---" * len(result.front[0]) + "|", *rows, ""]


def _front_cells(result: SweepResult) -> list[list[str]]:
    if not result.front:
        return []
    shown = [[value if isinstance(value, str) else _number(value) for value in row.values()] for row in result.front]
    return [list(result.front[0]), *shown]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _score(metric: str, value: float) -> str:
    return f"{value:.4g}" if metric in NO_SHARES else f"{100 * value:.1f}"
