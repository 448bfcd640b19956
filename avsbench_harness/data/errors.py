"""Errors about one file of a data set; the file and the reason are separate attributes."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.errors import UsageError


class BadFileError(UsageError):
    """A file exists, but its content is wrong.

    Attributes:
        path: the file.
        reason: the message without the path in front and the full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}.")
        self.path = path
        self.reason = reason


class UnreadableImageError(BadFileError):
    """An image file cannot be decoded."""


class MaskValueError(BadFileError):
    """A mask has a grey value or a colour that belongs to no class."""
