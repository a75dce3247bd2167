"""What a person sees while trials run, and when they are interrupted."""

from __future__ import annotations

import io
import signal

import pytest
from rich.console import Console

from bothways.cli.live import View, say
from bothways.cli.tune import asking, interruptible
from bothways.edges.hub import Event, Outcome
from bothways.errors import UserInterruptError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_what_is_kept_and_ends_as_a_shell_has_it(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            pytest.raises(UserInterruptError, match=r"^interrupted; it is kept$") as caught,
            interruptible("it is kept"),
        ):
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.exit_code == 128 + number


def test_the_command_that_is_shown_asks_as_the_model_reads() -> None:
    assert asking("runs/a b", paired=False).endswith("predict --model 'runs/a b' 'a text'")
    assert asking("m", "--format", "json", paired=True).endswith(
        "predict --model m --format json 'a text' --pair another"
    )


def test_errors_and_paths_are_text_and_no_markup() -> None:
    out = io.StringIO()
    console = Console(file=out)
    view = View("selection/accuracy", "max", 1, console)
    error = "no room in [/data] for [bold]"
    ended = Outcome(trial_id="000-control", status="failed", error=error)
    view(Event(kind="end", at=1.0, trial_id="000-control", outcome=ended))
    view(Event(kind="lane", at=2.0, lane=0, note="failed: [/x]"))
    say(console, ("problem: ", "yellow"), error)
    first, second, third = out.getvalue().splitlines()
    assert first.endswith(f"failed {error}")
    assert second.endswith("lane 0 failed: [/x]")
    assert third == f"problem: {error}"
