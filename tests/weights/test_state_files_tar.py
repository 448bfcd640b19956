"""torch.save's first format, a tar archive, in which torchvision published resnet50-19c8e357.pth.

torch only reads it today, so that the files are written here; torch.load is what they are compared with.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avsbench_harness.errors import UsageError
from avsbench_harness.weights.state_files import read_state


class Saved:
    """A tensor in the pickle of a tar file: a reference by number."""

    def __init__(self, number: int) -> None:
        self.number = number


class Called(Saved):
    """A parameter that is made by a call of its class."""

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.nn.Parameter, (Saved(self.number),), (True, False, OrderedDict())


class Stated(Saved):
    """A parameter that is made without arguments, and gets its tensor as part of its state."""

    __class__ = torch.nn.Parameter  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        state = (Saved(self.number), None, OrderedDict(), True, False)
        return copyreg.__newobj__, (torch.nn.Parameter,), state  # type: ignore[attr-defined]


def dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 2)
    pickler.persistent_id = lambda one: str(one.number) if type(one) is Saved else None  # type: ignore
    pickler.dump(value)
    return buffer.getvalue()


def parts(tensors: list[Tensor], value: Any) -> dict[str, bytes]:
    """The parts of a tar file; tensor i has number i and is a view of storage 100 + i."""
    storages, layouts = dumps(len(tensors)), dumps(len(tensors))
    for number, tensor in enumerate(tensors):
        kind = "Float" if tensor.dtype == torch.float32 else "Long"
        whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
        storages += dumps((100 + number, "cpu", getattr(torch, f"{kind}Storage")))
        storages += struct.pack("<q", len(whole)) + whole.numpy().tobytes()
        layouts += dumps((number, 100 + number, getattr(torch, f"{kind}Tensor")))
        layouts += struct.pack("<i", tensor.dim()) + b"\xff\xff\0\x07"
        layouts += struct.pack(f"<{2 * tensor.dim()}q", *tensor.shape, *tensor.stride())
        layouts += struct.pack("<q", tensor.storage_offset())
    return {
        "sys_info": dumps({"little_endian": True}),
        "pickle": dumps(value),
        "tensors": layouts,
        "storages": storages + dumps([]),
    }


def write(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1484700000.25  # a fraction needs a member of its own
            archive.addfile(info, io.BytesIO(content))
    return path


TENSORS = [
    torch.arange(24.0).reshape(2, 3, 4),
    torch.arange(12.0).reshape(3, 4)[1:, ::2],
    torch.tensor([7, -(2**40)]),
    torch.arange(6.0).reshape(2, 3).T,
]


@pytest.mark.parametrize("parameter", [Called, Stated, Saved])
def test_tar_files_are_read_as_by_torch(tmp_path: Path, parameter: type[Saved]) -> None:
    state = OrderedDict(
        [("weight", parameter(0)), ("view", parameter(1)), ("count", Saved(2)), ("turned", Saved(3))]
    )
    path = write(tmp_path / "old.pth", parts(TENSORS, state))
    expected = torch.load(path, weights_only=False)
    found = read_state(path)
    assert list(found) == list(expected) == list(state)
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name
        assert not value.requires_grad


def test_damaged_tar_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.pth", parts(TENSORS, OrderedDict(a=Called(0), b=Saved(2))))
    content = path.read_bytes()
    last = content.rindex(dumps([]))  # behind it there is only padding
    for end in [*range(600, last, 97), last]:
        (tmp_path / "cut.pth").write_bytes(content[:end])
        with pytest.raises(UsageError, match=r"cut\.pth is"):
            read_state(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("part", "content", "reason"),
    [
        ("pickle", dumps(OrderedDict(a=os.getcwd)), "asks for the global 'posix.getcwd'"),
        ("pickle", dumps(OrderedDict(a=Saved(9))), "refers to something else than a tensor of the file"),
        ("storages", dumps(1) + dumps((100, "cpu", os.getcwd)), "asks for the global"),
        ("storages", dumps(1) + dumps((100, "cpu", torch.FloatTensor)), "something else than a storage"),
        (
            "storages",
            dumps(1) + dumps((100, "cpu", torch.FloatStorage)) + struct.pack("<q", 2**40),
            "declares a storage that does not fit its data",
        ),
        (
            "storages",
            dumps(1) + dumps((100, "cpu", torch.FloatStorage)) + struct.pack("<qf", 1, 0.5)
            + dumps([(5, 100, 0, 1)]),
            "has storages that are views of others",
        ),
        ("storages", dumps("many"), "is a tar archive but not one of torch.save"),
        (
            "tensors",
            dumps(1) + dumps((0, 100, torch.FloatTensor)) + struct.pack("<i4xqqq", 1, 99, 1, 0),
            "reaches beyond its storage",
        ),
        (
            "tensors",
            dumps(1) + dumps((0, 100, torch.FloatTensor)) + struct.pack("<i4x", 1000) + bytes(17000),
            "a tensor of 33 axes",
        ),
    ],
)  # fmt: skip
def test_hostile_tar_files_are_refused(tmp_path: Path, part: str, content: bytes, reason: str) -> None:
    members = parts(TENSORS[:1], OrderedDict(a=Saved(0)))
    assert read_state(write(tmp_path / "good.pth", members)).keys() == {"a"}
    with pytest.raises(UsageError, match=rf"bad\.pth .*{reason}"):
        read_state(write(tmp_path / "bad.pth", {**members, part: content}))


def test_other_tar_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a tar archive but not one of torch.save"):
        read_state(write(tmp_path / "other.pth", {"model.pth": b"x" * 600}))
    content = bytearray(write(tmp_path / "size.pth", parts(TENSORS[:1], {})).read_bytes())
    content[124:136] = b"-0000000777\0"
    (tmp_path / "size.pth").write_bytes(content)
    with pytest.raises(UsageError, match="is a damaged tar archive"):
        read_state(tmp_path / "size.pth")
