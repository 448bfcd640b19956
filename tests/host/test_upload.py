"""Multipart bodies: whole, cut at every place, malformed and too large."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra host")
pytest.importorskip("python_multipart", reason="needs the extra host")

from avsbench_harness.errors import UsageError
from avsbench_harness.host.upload import MAX_PARTS, OVERHEAD, TooLarge, Upload

FILE = bytes(range(256)) * 20


def part(name: str, value: bytes, filename: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    head += f'; filename="{filename}"' if filename else ""
    return b"--B\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--B--\r\n"


GOOD = body(part("csrf", b"token"), part("field.paper", "ä".encode()), part("file", FILE, "../../x.npz"))


def receive(path: Path, content: bytes, step: int = 1 << 16, limit: int = 10_000, admit=lambda fields: None):
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), step):
            yield content[start : start + step]

    upload = Upload("multipart/form-data; boundary=B", path, limit, admit)
    return asyncio.run(upload.receive(chunks())), upload


@pytest.mark.parametrize("step", [1, 2, 7, 100, 1 << 16])
def test_a_form_in_pieces(tmp_path: Path, step: int) -> None:
    seen: list[dict] = []
    path = tmp_path / "x.npz"
    digest, upload = receive(path, GOOD, step, admit=lambda fields: seen.append(dict(fields)))
    assert path.read_bytes() == FILE
    assert digest == hashlib.sha256(FILE).hexdigest()
    assert upload.size == len(FILE)
    assert seen == [upload.fields] == [{"csrf": "token", "field.paper": "ä"}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]  # the name of the form is not used


@pytest.mark.parametrize(
    "content",
    [
        b"", b"--B", GOOD[:-4], GOOD[: len(GOOD) // 2], body(part("csrf", b"x")), b"no form",
        body(part("file", FILE, "a"), part("file", FILE, "b")), body(part("other", FILE, "a")),
        body(*[part("a", b"") for _ in range(MAX_PARTS + 1)]), body(part("a", b"x" * 5000)),
        body(part("a" * 5000, b"x")),
    ],
)  # fmt: skip
def test_bad_forms_leave_nothing(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError):
        receive(tmp_path / "x.npz", content)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_holds_while_the_body_is_received(tmp_path: Path) -> None:
    received = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal received
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        while True:
            received += 1000
            yield b"x" * 1000

    upload = Upload("multipart/form-data; boundary=B", tmp_path / "x.npz", 50_000, lambda fields: None)
    with pytest.raises(TooLarge):
        asyncio.run(upload.receive(endless()))
    assert received <= 52_000
    assert list(tmp_path.iterdir()) == []
    upload = Upload("multipart/form-data; boundary=B", tmp_path / "x.npz", 1000, lambda fields: None)

    async def preamble() -> AsyncIterator[bytes]:
        while True:
            yield b"\r\n" * 1000

    with pytest.raises(UsageError):
        asyncio.run(upload.receive(preamble()))
    assert OVERHEAD < 1 << 20


def test_nothing_is_stored_without_admission(tmp_path: Path) -> None:
    def refuse(fields: dict[str, str]) -> None:
        assert fields == {"csrf": "token", "field.paper": "ä"}
        raise PermissionError

    with pytest.raises(PermissionError):
        receive(tmp_path / "x.npz", GOOD, admit=refuse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"]
)
def test_other_types_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match="multipart/form-data"):
        Upload(kind, tmp_path / "x", 1, lambda fields: None)
