"""Errors that speak to the user, and the exit code that each kind ends the command line with.

A message is one sentence or two: what is wrong, where, and what to do about it. The command line prints
it without a traceback; anything that is not an :class:`AvsbError` is a defect of the harness and keeps
its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AvsbError(Exception):
    """Something failed that the user can understand (exit code 1)."""

    exit_code = 1


class UsageError(AvsbError):
    """Bad usage or bad input: an unknown name, a malformed file, values that contradict (exit code 2)."""

    exit_code = 2


class SubmissionError(AvsbError):
    """A submission or solution file is not valid (exit code 3)."""

    exit_code = 3


class MissingDataError(AvsbError):
    """Data that the command needs is not there (exit code 4)."""

    exit_code = 4


class Busy(AvsbError):
    """Another process works on it (exit code 1)."""


class TooManyProcesses(UsageError):
    """So many processes cannot share a run; that says nothing about the run, which fewer can carry out."""


class Interrupted(AvsbError):
    """The run was told to stop and has saved its state (128 and the signal: 130 SIGINT, 143 SIGTERM)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(message: object, most: int = 500) -> str:
    """A message, or an exception's, without line breaks and of at most so many characters."""
    return " ".join(str(message).split())[:most]


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint to append to "unknown X": the nearest known name, else all of them.

    Starts with a space, so that it follows a finished sentence directly.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(names)}." if names else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> UsageError:
    """The error for a name that nothing answers to, with the nearest known one."""
    return UsageError(f"Unknown {kind} '{word}'.{suggestion(word, known)}")
