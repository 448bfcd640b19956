"""Errors about one file of a data set, which keep the file and the reason apart for those who list them."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.errors import UsageError


class BadFileError(UsageError):
    """A file is there, but is not what it should be.

    Attributes:
        path: the file.
        reason: the rest of the sentence that begins with the path, without the full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}.")
        self.path = path
        self.reason = reason


class UnreadableImageError(BadFileError):
    """An image file cannot be decoded."""


class MaskValueError(BadFileError):
    """A mask holds a grey value or a colour that stands for no class."""
