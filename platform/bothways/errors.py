"""What a user can get wrong: one line that names the place, the value and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in a file, an option or the data. The command line prints it as one line and exits with `exit_code`."""

    exit_code = 2


class ConflictError(UserError):
    """Something else already holds what was asked for: a sweep of that name is running."""

    exit_code = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known name, else the list of known names."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}"


def one_line(error: BaseException) -> str:
    """The error's kind and message on one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    prefix = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return (prefix + text)[:300]


class UserInterruptError(UserError):
    """Ctrl-C or SIGTERM. The exit code is 128 + the signal's number, as a shell has it."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
