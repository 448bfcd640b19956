"""The reader of one pickled tensor: AVSBench's files are read, all others refused; nothing is executed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsbench_harness.errors import UsageError
from avsbench_harness.safe_pickle import read_float_tensor
from avsbench_harness.safe_pickle.reader import MAX_TENSOR_FILE

SHAPE = (None, 1, 4, 3)


def _tensor(rows: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(rows * 12, dtype=dtype).reshape(rows, 1, 4, 3) / 7


def _saved(value: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], np.ndarray]:
    def read_content(content: bytes) -> np.ndarray:
        path = tmp_path / "clip.pkl"
        path.write_bytes(content)
        return read_float_tensor(path, SHAPE, max_rows=8)

    return read_content


# --- files that are read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("grad", [True, False])
def test_pickled_tensors_of_every_protocol(read, protocol: int, grad: bool):
    tensor = _tensor().requires_grad_(grad)
    np.testing.assert_array_equal(read(pickle.dumps(tensor, protocol)), tensor.detach().numpy())


def test_a_tensor_of_the_published_script(read):
    examples = _tensor().squeeze(1).numpy().astype(np.float64)
    tensor = torch.tensor(examples, requires_grad=True)[:, None, :, :].float()
    np.testing.assert_array_equal(read(pickle.dumps(tensor)), tensor.detach().numpy())


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_save(read, zipped: bool):
    np.testing.assert_array_equal(read(_saved(_tensor(), zipped)), _tensor().numpy())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_become_float32(read, dtype: torch.dtype):
    array = read(pickle.dumps(_tensor(dtype=dtype)))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, _tensor(dtype=dtype).float().numpy())


def test_views_into_a_larger_storage(read):
    view = torch.arange(200.0).reshape(2, 4, 25)[:, None, :, 1:20:8]
    assert view.shape == (2, 1, 4, 3)
    for content in (pickle.dumps(view), _saved(view), _saved(view, zipped=False)):
        np.testing.assert_array_equal(read(content), view.numpy())


# --- files that could run code ----------------------------------------------------------------------------


class _Calls:
    """Pickles to a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: [evil], lambda evil: {"x": (evil,)}])
def test_a_shell_command_is_named_and_not_run(read, tmp_path: Path, protocol: int, wrap):
    victim = tmp_path / "victim"
    content = pickle.dumps(wrap(_Calls(os.system, f"touch {victim}")), protocol)
    with pytest.raises(
        UsageError, match=rf"clip\.pkl (asks for the global '{os.name}\.system'|uses the pickle)"
    ):
        read(content)
    assert not victim.exists()
    pickle.loads(content)  # the attack itself works
    assert victim.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (_Calls(eval, "1"), r"builtins\.eval"),
        (_Calls(getattr, "a", "b"), r"builtins\.getattr"),
        (_Calls(torch.load, "x"), r"torch\.serialization\.load"),
        (torch.nn.Parameter(_tensor()), r"torch\._utils\._rebuild_parameter"),
        (_tensor().numpy(), r"numpy\..*"),
        (_tensor().long(), r"torch\.LongStorage"),
    ],
)
def test_other_globals_are_named(read, value: Any, name: str):
    with pytest.raises(UsageError, match=f"asks for the global '{name}'"):
        read(pickle.dumps(value))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_call_inside_a_torch_file_is_refused(read, zipped: bool):
    with pytest.raises(UsageError, match=r"asks for the global '.*\.system'"):
        read(_saved(_Calls(os.system, "true"), zipped))


def test_a_call_inside_the_storage_of_a_pickled_tensor_is_refused(read):
    inner = _saved(_Calls(os.system, "true"), zipped=False)
    with pytest.raises(UsageError, match=r"asks for the global '.*\.system'"):
        read(pickle.dumps(_Calls(torch.storage._load_from_bytes, inner)))


def test_nested_pickles_end_at_the_second_level(read):
    content = _saved(_tensor(), zipped=False)
    for _ in range(2):
        content = pickle.dumps(_Calls(torch.storage._load_from_bytes, content))
    with pytest.raises(UsageError, match="nests pickles"):
        read(content)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"\x80\x02cos\nsystem\n.", "global 'os.system'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "global 'os.system'"),
        (b"\x80\x04K\x01\x8c\x06system\x93.", r"whole pickle \(STACK_GLOBAL requires str"),
        (b"ios\nsystem\n.", "instruction INST"),
        (b"(cos\nsystem\no.", "global 'os.system'"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n)R}b.", "instruction BUILD"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"Psomething\n.", "instruction PERSID"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls 'torch.FloatStorage'"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x05R.", "calls something that is not a function"),
        (b"\x80\x02K\x01)R.", "calls something that is not a function"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "arguments it does not take"),
        (
            b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R.",
            "something else than bytes",
        ),
        (b"\x80\x02K\x05Q.", "something else than a storage"),
    ],
)
def test_hand_written_programs(read, program: bytes, reason: str):
    with pytest.raises(UsageError, match=reason):
        read(program)


# --- files that could exhaust memory or time --------------------------------------------------------------


def test_a_large_memo_index_allocates_nothing(read):
    # Python's own unpickler would make a table of 2**32 entries.
    with pytest.raises(UsageError, match="something else than one tensor"):
        read(b"\x80\x02Nr\xff\xff\xff\xff.")
    with pytest.raises(UsageError, match="never stored"):
        read(b"\x80\x02j\xff\xff\xff\xff.")


def test_nested_tuples_that_double_at_each_level_are_not_traversed(read):
    double = b"q\x00h\x00\x86"  # store, fetch, pair: every level doubles the number of values
    with pytest.raises(UsageError, match="something else than one tensor"):
        read(b"\x80\x02N" + double * 100 + b".")
    with pytest.raises(UsageError, match="dictionary key"):
        read(b"\x80\x02}N" + double * 100 + b"Ns.")


def test_declared_lengths_beyond_the_file(read):
    for program in (
        b"\x80\x02T\xff\xff\xff\x7f",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f",
        b"\x80\x02X\xff\xff\xff\xff",
    ):
        with pytest.raises(UsageError, match=r"clip\.pkl"):
            read(program + b"abc.")


def test_a_file_over_the_limit_is_not_read(read):
    with pytest.raises(UsageError, match="larger than 16 MB"):
        read(b"\x80\x02" + b"N0" * (MAX_TENSOR_FILE // 2) + b".")


class _Rebuilds:
    """Pickles to a tensor with any size, stride and offset over the storage of 12 floats."""

    def __init__(self, size: Any, stride: Any, offset: Any = 0) -> None:
        self.layout = (offset, size, stride)

    def __reduce__(self) -> tuple[Any, ...]:
        storage = torch.storage.TypedStorage(
            wrap_storage=torch.arange(12.0).untyped_storage(), dtype=torch.float32, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (storage, *self.layout, False, OrderedDict())


def test_the_layout_attack_is_otherwise_valid(read):
    np.testing.assert_array_equal(
        read(pickle.dumps(_Rebuilds((1, 1, 4, 3), (12, 12, 3, 1)))).ravel(), range(12)
    )


@pytest.mark.parametrize(
    ("size", "stride", "offset", "reason"),
    [
        ((10**12, 1, 4, 3), (0, 0, 0, 0), 0, r"shape \(1000000000000, 1, 4, 3\)"),
        ((9, 1, 4, 3), (0, 0, 3, 1), 0, r"shape \(9, 1, 4, 3\) where \('n', 1, 4, 3\)"),
        ((0, 1, 4, 3), (12, 12, 3, 1), 0, "shape"),
        ((1,) * 1000, (1,) * 1000, 0, "1000 axes"),
        ((2, 1, 4, 3), (12, 12, 3, 1), 0, "beyond its storage"),
        ((1, 1, 4, 3), (0, 0, 3, 2**40), 0, "beyond its storage"),
        ((1, 1, 4, 3), (12, 12, 3, 1), 1, "beyond its storage"),
        ((1, 1, 4, 3), (12, 12, 3, -1), 0, "not a plain one"),
        ((1, 1, 4, 3), (12, 12, 3, 1), -4, "not a plain one"),
        ((1, 1, 4, 3), (12, 12, 3), 0, "not a plain one"),
        ((1, 1, 4.0, 3), (12, 12, 3, 1), 0, "instruction BINFLOAT"),
        ((1, 1, 4, True), (12, 12, 3, 1), 0, "not a plain one"),
        ("1143", (12, 12, 3, 1), 0, "not a plain one"),
    ],
)
def test_layouts_that_leave_the_storage_are_refused(read, size, stride, offset, reason):
    with pytest.raises(UsageError, match=reason):
        read(pickle.dumps(_Rebuilds(size, stride, offset)))


def test_declared_storages_must_fit_their_data(read):
    content = _saved(_tensor(1), zipped=False)
    header = struct.pack("<q", 12)
    assert content.count(header) == 1
    with pytest.raises(UsageError, match="does not fit its data"):
        read(content.replace(header, struct.pack("<q", 2**60)))
    with pytest.raises(UsageError, match="does not fit its data"):
        read(content[:-4])


def _rezipped(
    content: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def test_zip_files_with_other_parts(read):
    content = _saved(_tensor())
    np.testing.assert_array_equal(read(_rezipped(content, lambda _, part: part)), _tensor().numpy())
    with pytest.raises(UsageError, match="compressed parts"):
        read(_rezipped(content, lambda _, part: part, zipfile.ZIP_DEFLATED))
    with pytest.raises(UsageError, match="does not fit its data"):
        read(_rezipped(content, lambda name, part: part[:-4] if name.endswith("data/0") else part))
    with pytest.raises(UsageError, match="big-endian"):
        read(_rezipped(content, lambda name, part: b"big" if name.endswith("byteorder") else part))
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UsageError, match=r"not one of torch\.save"):
        read(empty.getvalue())
    with pytest.raises(UsageError, match="damaged zip file"):
        read(content[: len(content) // 2])


# --- damaged files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, 5, "text", [1, 2], {"a": 1}, (1,), True, b"bytes", 0x1950A86A20F9469CFC6C]
)
def test_other_values(read, value: Any):
    with pytest.raises(UsageError, match=r"clip\.pkl .*only a pickled float tensor is read"):
        read(pickle.dumps(value))


@pytest.mark.parametrize("shape", [(5,), (2, 4, 3), (2, 1, 3, 4), (2, 1, 4, 3, 1)])
def test_other_shapes(read, shape: tuple[int, ...]):
    with pytest.raises(UsageError, match="holds a tensor of shape"):
        read(pickle.dumps(torch.zeros(shape)))


def test_missing_and_empty_files(read, tmp_path: Path):
    with pytest.raises(UsageError, match=r"clip\.pkl is empty"):
        read(b"")
    with pytest.raises(UsageError, match=r"absent\.pkl cannot be read"):
        read_float_tensor(tmp_path / "absent.pkl", SHAPE, 8)


@pytest.mark.parametrize("make", [pickle.dumps, _saved, lambda value: _saved(value, zipped=False)])
def test_mutated_files_are_read_or_refused(read, make):
    seed = 20_240
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    original = make(_tensor(1))
    refused = 0
    for _ in range(700):
        content = bytearray(original)
        for position in random.integers(0, len(content), random.integers(1, 6)):
            content[position] = random.integers(0, 256)
        if random.random() < 0.2:
            del content[random.integers(0, len(content)) :]
        try:
            assert read(bytes(content)).shape[1:] == SHAPE[1:]
        except UsageError:
            refused += 1
    assert refused > 100
