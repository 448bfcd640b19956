"""Uploads: multipart bodies parsed while they are received, with limits before anything is stored."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from avsbench_harness.errors import UsageError
from avsbench_harness.files import sync

#: Limits of a form without its file: number of parts, bytes of a value, bytes of a part's headers.
MAX_PARTS, MAX_VALUE, MAX_HEADER = 20, 4096, 4096

#: Bytes of a body beyond its file.
OVERHEAD = 128 * 1024

_FLUSH = 1 << 20


class TooLarge(UsageError):
    """The body is larger than allowed."""


class Upload:
    """A form with one file, which is written to disk while it is received.

    Args:
        content_type: the header of the request.
        path: the file to write.
        limit: bytes of the file.
        admit: called with the fields before the first byte of the file is accepted; it raises to refuse.

    Attributes:
        fields: the text fields that came so far.
        size: bytes of the file.
    """

    def __init__(
        self, content_type: str, path: Path, limit: int, admit: Callable[[dict[str, str]], None]
    ) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise UsageError("An upload is a form of the type multipart/form-data.")
        self.fields: dict[str, str] = {}
        self.size = 0
        self._path, self._limit, self._admit = path, limit, admit
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        self._parts = 0
        self._header, self._value, self._headers = b"", b"", dict[bytes, bytes]()
        self._name, self._is_file, self._has_file, self._text = "", False, False, bytearray()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    async def receive(self, chunks: AsyncIterator[bytes]) -> str:
        """Receive the body; return the SHA-256 of the file, which is then on disk.

        Raises:
            TooLarge: the body exceeds the limit.
            UsageError: the form is malformed, incomplete, or has no file.
        """
        temporary = self._path.with_suffix(".part")
        try:
            with temporary.open("wb") as file:
                temporary.chmod(0o600)
                total = 0
                async for chunk in chunks:
                    total += len(chunk)
                    if total > self._limit + OVERHEAD:
                        raise TooLarge(f"The file has more than {self._limit // 1_000_000} MB.")
                    self._feed(chunk)
                    if len(self._pending) >= _FLUSH:
                        await run_in_threadpool(self._flush, file)
                if not self._ended or not self._has_file:
                    raise UsageError("The upload is incomplete or has no file; upload it again.")
                await run_in_threadpool(self._flush, file)
            await run_in_threadpool(self._store, temporary)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return self._digest.hexdigest()

    def _feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except UsageError:
            raise
        except ValueError as error:  # of the parser
            raise UsageError("The form of the upload is malformed.") from error

    def _flush(self, file: IO[bytes]) -> None:
        self._digest.update(self._pending)
        file.write(self._pending)
        self._pending.clear()
        file.flush()

    def _store(self, temporary: Path) -> None:
        sync(temporary)
        temporary.replace(self._path)
        sync(self._path.parent)

    # Callbacks of the parser

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise UsageError(f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}
        self._text = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._bound_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bound_header()

    def _bound_header(self) -> None:
        if len(self._header) + len(self._value) > MAX_HEADER or len(self._headers) > 10:
            raise UsageError("The headers of a part of the form are too long.")

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", errors="replace")
        self._is_file = b"filename" in options
        if not self._is_file:
            return
        if self._name != "file" or self._has_file:
            raise UsageError("The form must have one file, named 'file'.")
        self._admit(self.fields)
        self._has_file = True

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.size += end - start
            if self.size > self._limit:
                raise TooLarge(f"The file has more than {self._limit // 1_000_000} MB.")
            self._pending += data[start:end]
            return
        self._text += data[start:end]
        if len(self._text) > MAX_VALUE:
            raise UsageError("A field of the form is too long.")

    def _part_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._text.decode("utf-8", errors="replace")

    def _end(self) -> None:
        self._ended = True
