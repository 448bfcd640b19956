"""Errors for users, and the exit code of each kind.

A message is one or two sentences: what is wrong, where, and what to do. The command line prints it without a
traceback; any other exception is a defect of the harness and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Longest message, in characters.
MAX_MESSAGE = 4000


class AvsbError(Exception):
    """A failure with a message for the user (exit code 1)."""

    exit_code = 1

    def __str__(self) -> str:
        """The message; text from untrusted files in it is neutralised and cut off."""
        return printable(super().__str__()[:MAX_MESSAGE])


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


#: Sentences about files that cannot be read or written, by error number.
_OS_ERRORS = {
    errno.ENOSPC: "The disk is full: {path} cannot be written; free some space and rerun the command.",
    errno.EDQUOT: "The disk quota is used up: {path} cannot be written; free some space.",
    errno.EFBIG: "{path} cannot be written: the limit of the size of files is reached.",
    errno.EACCES: "No permission for {path}; change its permissions or choose another folder.",
    errno.EPERM: "No permission for {path}; change its permissions or choose another folder.",
    errno.EROFS: "{path} is on a read-only file system; choose another folder.",
    errno.ENOTDIR: "{path} needs a folder where there is a file; move the file or choose another folder.",
    errno.EEXIST: "{path} already exists and is no folder; move it or choose another one.",
    errno.EISDIR: "{path} is a folder, where a file is needed.",
    errno.ENOENT: "There is no file {path}.",
    errno.ENAMETOOLONG: "The name {path} is too long for the file system.",
}


def os_error(error: OSError) -> AvsbError | None:
    """The error for users of a file that cannot be read or written; ``None`` if it is not about a file."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if error.errno is None or (error.filename is None and error.errno not in full):
        return None
    path = "the output" if error.filename is None else one_line(os.fsdecode(error.filename))
    text = _OS_ERRORS.get(error.errno, f"{{path}}: {error.strerror}.")
    return AvsbError(text.replace("{path}", path))


#: Exceptions of third-party code; ``sys.exit`` in a plugin does not end the harness.
PLUGIN_ERRORS = (Exception, SystemExit, GeneratorExit)


def describe(error: BaseException) -> str:
    """Type and message of an exception, one line."""
    return one_line(f"{type(error).__name__}: {error}", 300)


@contextmanager
def plugin_errors(failure: str) -> Iterator[None]:
    """Report an exception of a plugin's code with one sentence.

    Args:
        failure: the beginning of the sentence: ``x cannot build its network``.

    Raises:
        AvsbError: the code raised an exception of another type.
    """
    try:
        yield
    except AvsbError:
        raise
    except PLUGIN_ERRORS as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        file = Path(place.filename).name
        raise AvsbError(f"{failure}: {describe(error)} ({file}, line {place.lineno}).") from error


def one_line(message: object, limit: int = 500) -> str:
    """A text, message or exception as one line of at most ``limit`` printable characters."""
    line = " ".join(printable(str(message)[: 4 * limit]).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def printable(text: str) -> str:
    """Untrusted text for output: control characters and lone surrogates become U+FFFD, white space stays."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() or mark in " \n\t" else "\ufffd" for mark in text)


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
