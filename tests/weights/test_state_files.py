"""Weights files of other people: every common format is read, and nothing in them is executed."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsbench_harness.errors import UsageError
from avsbench_harness.safe_pickle import RefusedError, read_values
from avsbench_harness.weights.state_files import read_state

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.array([0.5, -2.0], np.float16),
    "b.transposed": np.arange(6.0).reshape(2, 3).T,
    "b.fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "b.strided": np.arange(20, dtype=np.int32)[::3],
    "b.big_endian": np.arange(4, dtype=">f4"),
    "b.flags": np.array([True, False]),
    "b.num_batches_tracked": np.array(7),
    "b.scalar": np.float64(2.5),
}
TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num_batches_tracked": torch.tensor(3)}


def assert_same(state: dict[str, torch.Tensor], expected: dict[str, Any]) -> None:
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), np.asarray(value), err_msg=name)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_pickles_of_detectron2(tmp_path: Path, protocol: int, kind: type) -> None:
    content = {"model": kind(ARRAYS), "__author__": "someone", "matching_heuristics": True, "lr": 1e-4}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content, protocol))
    assert_same(read_state(tmp_path / "R-50.pkl"), ARRAYS)
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(ARRAYS, protocol))
    assert_same(read_state(tmp_path / "bare.pkl"), ARRAYS)


def test_a_pickle_of_python_2_and_numpy_1(tmp_path: Path) -> None:
    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    dtype = b"cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    numbers = np.array([[1.5, -2.0, 250.0]], "<f4").tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01K\x01K\x03\x86" + dtype + b"\x89" + text(numbers) + b"tb"
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}" + text(b"w") + array + b"s.")
    assert_same(read_state(tmp_path / "old.pkl"), {"w": np.array([[1.5, -2.0, 250.0]], np.float32)})


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_inside_torch_files(tmp_path: Path, zipped: bool) -> None:
    native = {name: value for name, value in ARRAYS.items() if name != "b.big_endian"}
    content = {"model": {**native, **TENSORS}, "iteration": 9, "best": np.float64(0.7), "seed": np.int64(1)}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    assert_same(read_state(tmp_path / "model.pth"), {**native, **TENSORS})


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_as_by_torch(tmp_path: Path, zipped: bool) -> None:
    whole = torch.arange(24.0).reshape(2, 3, 4)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        **{str(dtype): torch.tensor([0, 1, 3]).to(dtype) for dtype in (
            torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8,
            torch.bool,
        )},
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "transposed": whole.transpose(0, 2),
        "slice": whole[1, ::2, 1:3],
        "tied": whole,
    }  # fmt: skip
    content = {
        "state_dict": OrderedDict(state),
        "optimizer": optimizer.state_dict(),
        "counts": Counter({3: 1}),
        "device": torch.device("cuda", 1),
        "epochs": {1, 2},
        "size": whole.shape,
        "type": torch.float32,
        "flags": [True, None, -1, 2**40, 0.5, "text", ("a", b"bytes")],
    }
    file = tmp_path / "a.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    expected = torch.load(file, weights_only=True)["state_dict"]
    found = read_state(file)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name
    found["tied"][0, 0, 0] = 7  # memory of its own, which may be written
    assert found["transposed"][0, 0, 0] == 7


def test_torch_files_before_version_0_4(tmp_path: Path) -> None:
    """Tensors were rebuilt from four arguments, and parameters by their class."""

    class Old:
        def __init__(self, *call: Any) -> None:
            self.call = call

        def __reduce__(self) -> tuple[Any, ...]:
            return self.call

    storage = torch.storage.TypedStorage(
        wrap_storage=torch.arange(6.0).untyped_storage(), dtype=torch.float32, _internal=True
    )
    tensor = Old(torch._utils._rebuild_tensor, (storage, 2, (2, 2), (2, 1)))
    state = OrderedDict(weight=Old(torch.nn.Parameter, (tensor, True)), mean=tensor)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    expected = [[2.0, 3.0], [4.0, 5.0]]
    assert_same(read_state(tmp_path / "old.pth"), {"weight": expected, "mean": expected})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n <html lang='en'>", "is a web page"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip"),
        (b'{"metadata": {"total_size": 1}}', "is JSON"),
        (b'\x40\0\0\0\0\0\0\0{"a":{"dtype"', r"rename it to \.safetensors"),
        (b"hello", "is not a weights file"),
        (b"\xef\xbb\xbf<html>", "is a web page"),
        (b"<!-- saved --><html>", "is a web page"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UsageError, match=rf"a\.pth .*{reason}"):
        read_state(tmp_path / "a.pth")
    if "pointer" in reason or "web page" in reason or "gzip" in reason or "JSON" in reason:
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(UsageError, match=rf"a\.safetensors .*{reason}"):
            read_state(tmp_path / "a.safetensors")


def test_archives_of_something_else_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(2))
    with pytest.raises(UsageError, match=r"a\.npz is a NumPy archive"):
        read_state(tmp_path / "a.npz")
    torch.save({"w": torch.ones(2)}, tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.write(tmp_path / "b.pth", "inside/b.pth")
    with pytest.raises(UsageError, match=r"c\.pth is a zip archive of weights; extract it"):
        read_state(tmp_path / "c.pth")
    with zipfile.ZipFile(tmp_path / "d.pth", "w") as archive:
        archive.writestr("README", "")
    with pytest.raises(UsageError, match=r"d\.pth is a zip file but not one of torch\.save"):
        read_state(tmp_path / "d.pth")
    (tmp_path / "b.pth").rename(tmp_path / "b.safetensors")
    with pytest.raises(UsageError, match=r"is a file of torch\.save; rename it to \.pth"):
        read_state(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": {"state_dict": {f"module.{name}": value for name, value in state.items()}}},
        lambda state: OrderedDict(state),
    ],
    ids=["bare", "model", "state_dict", "module", "all", "ordered"],
)
def test_wrappers_and_prefixes(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(TENSORS), tmp_path / "a.pth")
    assert_same(read_state(tmp_path / "a.pth"), TENSORS)


# --- nothing is executed ----------------------------------------------------------------------------------


class Evil:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("place", ["value", "beside", "inside an array"])
def test_pickles_that_could_run_code_are_refused(tmp_path: Path, protocol: int, place: str) -> None:
    victim = tmp_path / "victim"
    evil = Evil(victim)
    content = {
        "value": {"model": {"w": evil}},
        "beside": {"model": ARRAYS, "__author__": evil},
        "inside an array": {"model": {"w": np.array([evil], object)}},
    }[place]
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(
        UsageError, match=r"evil\.pkl (asks for the global '\w+\.mkdir'|holds an array of 'O8')"
    ):
        read_state(file)
    assert not victim.exists()
    pickle.loads(file.read_bytes())  # the attack itself works
    assert victim.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_that_could_run_code_are_refused(tmp_path: Path, zipped: bool) -> None:
    file, victim = tmp_path / "evil.pth", tmp_path / "victim"
    torch.save({"model": ARRAYS, "args": Evil(victim)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=r"evil\.pth asks for the global '\w+\.mkdir'"):
        read_state(file)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [(eval, r"builtins\.eval"), (getattr, r"builtins\.getattr"), (np.load, r"numpy\.load"),
     (torch.load, r"torch\.serialization\.load")],
)  # fmt: skip
def test_other_functions_are_named(tmp_path: Path, function: Any, name: str) -> None:
    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            return function, ("1",)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": Calls()}, 4))
    with pytest.raises(UsageError, match=f"asks for the global '{name}'"):
        read_state(tmp_path / "a.pkl")


# --- damaged files ----------------------------------------------------------------------------------------


def changed(old: bytes, new: bytes, value: np.ndarray | None = None) -> bytes:
    """The pickle of an array of two float32 numbers with some bytes changed."""
    content = pickle.dumps({"w": np.ones(2, np.float32) if value is None else value}, 3)
    assert content.count(old) == 1
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed(b"K\x01K\x02\x85", b"K\x01K\x03\x85"), "does not fit its data"),
        (changed(b"K\x01K\x02\x85", b"K\x01J\xff\xff\xff\x7f\x85"), "does not fit its data"),
        (changed(b"K\x01K\x02\x85", b"K\x01J\xff\xff\xff\xff\x85"), "not a plain one"),
        (changed(b"K\x01K\x02\x85", b"K\x01K\x02\x86"), "something that is not an array"),
        (changed(b"X\x02\x00\x00\x00f4", b"X\x02\x00\x00\x00f8"), "does not fit its data"),
        (changed(b"X\x02\x00\x00\x00f4", b"X\x02\x00\x00\x00O8"), "not of plain numbers"),
        (changed(b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00?"), "not of plain numbers"),
        (pickle.dumps({"w": np.array(["text"])}, 3), "'U4', not of plain numbers"),
        (pickle.dumps({"w": np.zeros(2, "f4,i4")}, 3), "not of plain numbers"),
        (pickle.dumps({"w": np.array(["2020-01-01"], "M8[s]")}, 3), "not of plain numbers"),
        (pickle.dumps({"w": np.ones(2)}, 3)[:-8], "whole pickle"),
        (b"\x80\x02}.", "does not hold a state dict"),
        (b"\x80\x02]K\x01a.", "does not hold a state dict"),
        (pickle.dumps({"w": "text"}, 3), "does not hold a state dict"),
        (pickle.dumps({1: np.ones(2)}, 3), "does not hold a state dict"),
        (b"\x80\x02]}b.", "gives a state to something that is not an array"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "calls 'numpy.ndarray'"),
    ],
)
def test_faulty_pickles_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UsageError, match=rf"a\.pkl .*({reason})"):
        read_state(tmp_path / "a.pkl")


def test_an_empty_torch_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(UsageError, match=r"empty\.pth is empty; .*Fetch it again, or"):
        read_state(tmp_path / "empty.pth")


def test_an_array_without_numbers_is_refused(tmp_path: Path) -> None:
    program = b"\x80\x02}X\x01\x00\x00\x00wcnumpy.core.multiarray\n_reconstruct\n"
    program += b"cnumpy\nndarray\nK\x00\x85C\x01b\x87Rs."
    (tmp_path / "a.pkl").write_bytes(program)
    with pytest.raises(RefusedError, match="without numbers"):
        read_values(tmp_path / "a.pkl")["w"].to_numpy()
    with pytest.raises(UsageError, match=r"a\.pkl holds an array without numbers"):
        read_state(tmp_path / "a.pkl")


def test_lengths_beyond_the_file_allocate_nothing(tmp_path: Path) -> None:
    for program in (b"\x80\x04\x8e" + struct.pack("<Q", 2**62), b"\x80\x05\x96" + struct.pack("<Q", 2**62)):
        (tmp_path / "a.pkl").write_bytes(program + b"abc.")
        with pytest.raises(UsageError, match="whole pickle"):
            read_state(tmp_path / "a.pkl")


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_mutated_pickles_are_read_or_refused(tmp_path: Path) -> None:
    seed = 20_261
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    file, refused = tmp_path / "a.pkl", 0
    originals = [pickle.dumps({"model": ARRAYS}, protocol) for protocol in (2, 4, 5)]
    for turn in range(900):
        content = bytearray(originals[turn % 3])
        for position in random.integers(0, len(content), random.integers(1, 6)):
            content[position] = random.integers(0, 256)
        content[:2] = originals[turn % 3][:2]
        file.write_bytes(content)
        try:
            state = read_state(file)
            assert all(isinstance(value, torch.Tensor) for value in state.values())
        except UsageError:
            refused += 1
    assert refused > 100, f"seed {seed}"
