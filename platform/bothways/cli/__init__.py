"""The command line. Only the module of the command that is called is imported: `bothways --help` loads none.

Exit codes: 0 done; 1 a failure that is ours; 2 a mistake in what was asked; 3 somebody else holds it; 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple, cast

from bothways.errors import UserError, did_you_mean, one_line


class Command(NamedTuple):
    """`target`: `module:name` of a function, or of a `typer.Typer` with commands of its own. `about`: one line."""

    target: str
    about: str


COMMANDS = {
    "tune": Command("bothways.cli.tune:tune", "search a pipeline's space, confirm the best, register it"),
    "train": Command("bothways.cli.train:train", "one experiment, no search"),
    "compare": Command("bothways.cli.compare:compare", "each side alone, both, neither: what is it worth"),
    "prepare": Command("bothways.cli.prepare:prepare", "a language model on a pipeline's texts, kept with its head"),
    "few-shot": Command("bothways.cli.few_shot:few_shot", "meta-learning: arms judged by tasks of a few rows"),
    "check": Command("bothways.cli.check:check", "check pipeline and space files; nothing is started"),
    "predict": Command("bothways.cli.predict:predict", "what a trained model says of texts: labels, answers, texts"),
    "loop": Command("bothways.cli.loop:loop", "stages that start from each other: train, evaluate, adjust, again"),
    "suggest-labels": Command(
        "bothways.cli.suggest_labels:suggest_labels", "the rows worth a label next, as a file to fill in"
    ),
    "ensemble": Command("bothways.cli.ensemble:ensemble", "a sweep's models averaged into one, or asked together"),
    "policy": Command("bothways.cli.policy:app", "show a policy, preview it, apply it to a file of texts"),
    "list": Command("bothways.cli.catalogue:catalogue", "the methods, their knobs, ranges and sources"),
    "assets": Command("bothways.cli.assets:app", "list, fetch and verify models, data and lexicons"),
    "lexicon": Command("bothways.cli.lexicon:app", "learn a vocabulary map from two corpora, for lexicon_map"),
    "space": Command("bothways.cli.space:app", "show a search space as a table"),
    "schema": Command("bothways.cli.schema:schema", "JSON schema of the files, for editors"),
    "ui": Command("bothways.cli.ui:ui", "the MLflow pages of what was run"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    if any(thread.name.startswith("lane-") for thread in threading.enumerate()):
        # Interrupted in the middle of a trial: a thread still waits in Ray, which would abort an orderly exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what went wrong is one `error:` line each on standard error."""
    try:
        return _dispatch(arguments)
    except UserError as error:
        for line in str(error).splitlines():
            _say(f"error: {line}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader has seen enough: `bothways list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("BOTHWAYS_DEBUG", "") not in ("", "0"):
            raise
        _say(f"error: {one_line(error)}")
        _say("this is not your mistake: run it again with BOTHWAYS_DEBUG=1 to see where it happened")
        return 1


def _dispatch(arguments: Sequence[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h", "help"):
        sys.stdout.write(_overview())
        return 0
    if name == "--version":
        from bothways import __version__

        sys.stdout.write(f"bothways {__version__}\n")
        return 0
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}: {did_you_mean(name, COMMANDS)}")
    return _call(name, rest)


def _call(name: str, arguments: list[str]) -> int:
    import typer
    import typer.main

    module, attribute = COMMANDS[name].target.split(":")
    target = getattr(importlib.import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False, rich_markup_mode=None)
        target.command(name)(function)
    usage_error = cast(type[typer.BadParameter], typer.BadParameter.__bases__[0])  # typer has no public name for it
    try:
        code = typer.main.get_command(target)(arguments, prog_name=f"bothways {name}", standalone_mode=False)
    except usage_error as error:
        message = error.format_message().removesuffix(".").replace("Value error, ", "")
        raise UserError(f"{message}: see `bothways {name} --help`") from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Bidirectional fine-tuning: what a model reads and what it has to learn, searched jointly.",
            "",
            "usage: bothways COMMAND …     (bothways COMMAND --help says more)",
            "",
            *lines,
            "",
        ]
    )


def _say(line: str) -> None:
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    sys.stderr.write(f"{printable}\n")
