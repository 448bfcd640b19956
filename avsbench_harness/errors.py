"""Exceptions for users, with the exit codes of the command line.

A message has one or two sentences: what is wrong, where, and what to do. The command line prints it without
a traceback. Any other exception is a bug in the harness and is shown with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AvsbError(Exception):
    """An error that the user can act on (exit code 1)."""

    exit_code = 1


class UsageError(AvsbError):
    """Invalid usage or input: an unknown name, a malformed file, contradictory values (exit code 2)."""

    exit_code = 2


class SubmissionError(AvsbError):
    """An invalid submission or solution file (exit code 3)."""

    exit_code = 3


class MissingDataError(AvsbError):
    """Required data is missing (exit code 4)."""

    exit_code = 4


class Busy(AvsbError):
    """Another process is working on the run (exit code 1)."""


class TooManyProcesses(UsageError):
    """The number of processes is too large for the run; fewer processes can execute it (exit code 2)."""


class Interrupted(AvsbError):
    """The run was interrupted by a signal and has saved its state.

    The exit code is 128 plus the signal: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(message: object, most: int = 500) -> str:
    """A message or exception as one line of at most ``most`` characters."""
    return " ".join(str(message).split())[:most]


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint to append to an error about an unknown name: the closest known name, or else all of them.

    The hint starts with a space, so that it can be appended to a sentence.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(names)}." if names else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown name, with the closest known one."""
    return UsageError(f"Unknown {kind} '{word}'.{suggestion(word, known)}")
