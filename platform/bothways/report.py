"""A sweep's result as Markdown: for `result.md`, for MLflow, and for the terminal. Pure text out of `results`."""

from __future__ import annotations

from bothways.results import SweepResult


def markdown(result: SweepResult) -> str:
    """The arms' table, what was found, and the one honest sentence."""
    seeds = len(result.arms[0].scores["accuracy"])
    others = [] if result.metric == "accuracy" else [result.metric]
    rows = [
        " | ".join(
            [
                f"| {arm.name} | `{arm.trial_id}`",
                *(" · ".join(f"{100 * score:.1f}" for score in arm.scores[name]) for name in ["accuracy", *others]),
                f"{arm.test} |",
            ]
        )
        for arm in result.arms
    ]
    titles = [
        "arm",
        "trial",
        "test accuracy by seed, %",
        *(f"{name}, %" for name in others),
        "accuracy [95 % interval]",
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
