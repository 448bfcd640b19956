"""Errors for users, and the exit code of each kind.

A message is one or two sentences: what is wrong, where, and what to do. The command line prints it without a
traceback; any other exception is a defect of the harness and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AvsbError(Exception):
    """A failure with a message for the user (exit code 1)."""

    exit_code = 1


class UsageError(AvsbError):
    """Bad usage or bad input: an unknown name, a malformed file, contradictory values (exit code 2)."""

    exit_code = 2


class SubmissionError(AvsbError):
    """A submission or solution file is not valid (exit code 3)."""

    exit_code = 3


class MissingDataError(AvsbError):
    """Data that the command needs are missing (exit code 4)."""

    exit_code = 4


class Busy(AvsbError):
    """Another process holds the run (exit code 1)."""


class TooManyProcesses(UsageError):
    """The run has too few clips for the number of processes; fewer processes can execute it."""


class Interrupted(AvsbError):
    """The run was stopped by a signal and has saved its state (exit code 128 plus the signal's number)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(message: object, limit: int = 500) -> str:
    """A message or exception as one line of at most ``limit`` characters."""
    return " ".join(str(message).split())[:limit]


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message: the most similar known name, else all known names.

    Starts with a space.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(word[:100], names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(names)}." if names else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown name, with the most similar known one."""
    word = one_line(word, 100)
    return UsageError(f"Unknown {kind} '{word}'.{suggestion(word, known)}")
