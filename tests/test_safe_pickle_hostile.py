"""Hostile files are refused in one sentence, within limits of memory and time, in a child process."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to limit memory")

#: Reads every file of a folder with both readers, and prints one line of JSON for each. Memory is limited to
#: what the process has, a constant, and a multiple of the file's size.
CHILD = """
import json, resource, sys, time
from pathlib import Path
from avsbench_harness.errors import UsageError
from avsbench_harness.safe_pickle import read_float_tensor
from avsbench_harness.weights.state_files import read_state

def weights(path):
    return {name: list(value.shape) for name, value in read_state(path).items()}

def log_mel(path):
    return list(read_float_tensor(path, (None, 1, 96, 64), 64).shape)

def limit(size, multiple=%(multiple)d):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 32 * 2**20 + multiple * size
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

def attempt(path, read):
    limit(path.stat().st_size)
    start = time.perf_counter()
    try:
        outcome = {"read": read(path)}
    except UsageError as error:
        outcome = {"refused": str(error)}
    except BaseException as error:
        outcome = {"failed": f"{type(error).__name__}: {error}"}
    outcome["seconds"] = time.perf_counter() - start
    return outcome
"""
EACH = """
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (weights, log_mel):
        print(json.dumps([path.name, read.__name__, attempt(path, read)]), flush=True)
"""


def run_child(script: str, *arguments: object, multiple: int = 8, timeout: int = 300) -> list[Any]:
    """The lines of JSON that a child process prints."""
    command = [sys.executable, "-c", CHILD % {"multiple": multiple} + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout[-300:]} {done.stderr[-2000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- programs ---------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<I", len(encoded)) + encoded


def glob(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def dtype(code: str) -> bytes:
    return glob("numpy.dtype") + text(code) + b"\x89\x88\x87R"


def zipped(program: bytes, compression: int = zipfile.ZIP_STORED, **storages: bytes) -> bytes:
    """A ``torch.save`` file of the zip format."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", b"little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", content)
    return buffer.getvalue()


def legacy(program: bytes, *storages: tuple[int, bytes]) -> bytes:
    """A ``torch.save`` file of the format before, with storages of a declared count."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    heads = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
    keys = pickle.dumps([str(index) for index in range(len(storages))], 2)
    bodies = [struct.pack("<q", count) + content for count, content in storages]
    return b"".join([*heads, program, keys, *bodies])


def storage(count: int, key: str = "0") -> bytes:
    return (
        b"(" + text("storage") + glob("torch.FloatStorage") + text(key) + text("cpu") + integer(count) + b"tQ"
    )


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A tensor over storage 0 of ``count`` float32 numbers."""
    parts = storage(count) + integer(offset) + numbers(size) + numbers(stride)
    return glob("torch._utils._rebuild_tensor_v2") + b"(" + parts + b"\x89}tR"


def state(value: bytes, name: str = "w") -> bytes:
    """The pickle of a dictionary of one entry."""
    return b"\x80\x02}" + text(name) + value + b"s."


def remembered(value: bytes, use: bytes, times: int) -> bytes:
    """A list of a value and of what is made of it again and again; in ``use``, ``h`` and 0 fetch it."""
    return b"\x80\x02](" + value + b"q\x00" + use * times + b"e."


TOWER = b"K\x01" + b"q\x00h\x00\x86" * 80  # pairs of pairs: 2^80 values to hash, print or compare
MEGABYTE = b"B" + struct.pack("<I", 2**20) + bytes(2**20)
NOUGHTS = bytes(4 * 2**18)  # 2^18 float32 numbers
REBUILD = glob("torch._utils._rebuild_tensor_v2")


def overlapping_members() -> bytes:
    """A zip file with 1,000 members that share the same megabyte."""
    names = [str(index) for index in range(1000)]
    program = b"\x80\x02](" + b"".join(storage(2**18, name) for name in names) + b"e."
    whole = zipped(program, s0=NOUGHTS)
    end = whole.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", whole[end + 16 : end + 20])[0]
    entries = whole[start:end]
    last = entries[entries.rindex(b"PK\x01\x02") :]
    first = entries[: -len(last)]
    shared = b"".join(
        last[:28] + struct.pack("<H", len(f"archive/data/{name}")) + last[30:46]
        + f"archive/data/{name}".encode()
        for name in names
    )  # fmt: skip
    tail = struct.pack("<HHHHIIH", 0, 0, 1002, 1002, len(first + shared), start, 0)
    return whole[:start] + first + shared + b"PK\x05\x06" + tail


def patched(signature: bytes, place: int, change: bytes) -> bytes:
    """A zip file with bytes changed in its first record of a kind."""
    content = bytearray(zipped(state(tensor(4, (4,), (1,))), s0=bytes(16)))
    start = content.index(signature) + place
    content[start : start + len(change)] = change
    return bytes(content)


def many_members() -> bytes:
    """A zip file of 60,000 empty members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(60_000):
            archive.writestr(f"{index}", b"")
    return buffer.getvalue()


def many_tensors() -> bytes:
    """A safetensors file of 100,000 tensors without elements."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(index): entry for index in range(100_000)}).encode()
    return struct.pack("<Q", len(header)) + header


#: Object data type in a subarray of a plain one: with numpy's own functions, pointers that the file forges.
FORGED = (
    b"\x80\x02" + glob("collections.Counter") + glob("numpy.ndarray") + b")" + dtype("f8")
    + b"(K\x03" + text("<") + dtype("O8") + b"K\x01\x85\x86NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    + glob("_codecs.encode") + text("A" * 8) + text("latin1") + b"\x86R\x87R\x85R."
)  # fmt: skip

# fmt: off
CASES: dict[str, Callable[[], bytes]] = {
    "forged_dtype.pth": lambda: zipped(FORGED),
    "forged_dtype_legacy.pth": lambda: legacy(FORGED),
    "bytearray_6_gb.pth": lambda: zipped(
        b"\x80\x02" + glob("builtins.bytearray") + integer(6 * 10**9) + b"\x85R."
    ),
    "reconstruct_100_gb.pth": lambda: zipped(
        state(
            glob("numpy.core.multiarray._reconstruct") + glob("numpy.ndarray") + numbers((10**11,))
            + text("b") + b"\x87R"
        )
    ),
    "bytes8_of_4_eb.pkl": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "bytearray8_of_4_eb.pkl": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
    "frame_of_4_eb.pkl": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "memo_of_4_billion.pkl": lambda: b"\x80\x02Nr\xff\xff\xff\xff.",
    # hashing, printing, comparing
    "hash_in_ordered_dict.pkl": lambda: (
        b"\x80\x02" + glob("collections.OrderedDict") + b"]]" + TOWER + b"aK\x01aa\x85R."
    ),
    "hash_in_ordered_dict_pair.pkl": lambda: (
        b"\x80\x02" + glob("collections.OrderedDict") + b"]" + TOWER + b"K\x01\x86a\x85R."
    ),
    "hash_in_dict.pkl": lambda: b"\x80\x02}" + TOWER + b"K\x01s.",
    "hash_in_dict_items.pkl": lambda: b"\x80\x02}(" + TOWER + b"K\x01u.",
    "hash_of_long_integers.pkl": lambda: (
        b"\x80\x02](" + integer(1 << 2**22) + b"q\x00}(" + b"h\x00N" * 50_000 + b"u" + b"e."
    ),
    "print_of_data_type.pkl": lambda: state(glob("numpy.dtype") + TOWER + b"\x89\x88\x87R"),
    "compare_of_data_type_state.pkl": lambda: state(
        dtype("f4") + b"(K\x03" + text("<") + TOWER + b"NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    ),
    "compare_of_hooks.pth": lambda: zipped(
        state(REBUILD + b"(" + storage(1) + b"K\x00))\x89" + TOWER + b"tR"), s0=bytes(4)
    ),
    "global_of_a_tower.pkl": lambda: b"\x80\x04" + TOWER + text("x") + b"\x93.",
    "array_of_a_tower.pkl": lambda: state(
        glob("numpy.core.numeric._frombuffer") + b"(" + MEGABYTE + dtype("f4") + TOWER + text("C") + b"tR"
    ),
    # the same value again and again
    "dictionaries_of_one_list.pkl": lambda: remembered(
        b"](" + b"".join(text(str(index)) + b"N\x86" for index in range(20_000)) + b"e",
        glob("collections.OrderedDict") + b"h\x00\x85R", 20_000,
    ),
    "encodings_of_one_text.pkl": lambda: remembered(
        text("a" * 2**22), glob("_codecs.encode") + b"h\x00" + text("latin1") + b"\x86R", 2_000
    ),
    "arrays_of_the_same_bytes.pkl": lambda: (
        b"\x80\x02}" + text("0") + MEGABYTE + b"q\x00s"
        + b"".join(
            text(str(index)) + glob("numpy.core.numeric._frombuffer") + b"(h\x00" + dtype("f4")
            + integer(2**18) + b"\x85" + text("C") + b"tRs"
            for index in range(1000)
        ) + b"."
    ),
    "arrays_of_the_same_text.pkl": lambda: (
        b"\x80\x02}U\x010" + b"T" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x00s"
        + b"".join(
            text(str(index)) + glob("numpy.core.multiarray._reconstruct") + glob("numpy.ndarray")
            + b"K\x00\x85" + text("b") + b"\x87R(K\x01" + integer(2**18) + b"\x85" + dtype("f4")
            + b"\x89h\x00tbs"
            for index in range(1000)
        ) + b"."
    ),
    "tensors_of_one_storage.pth": lambda: zipped(
        b"\x80\x02}" + b"".join(
            text(str(index)) + tensor(2**18, (2**18,), (1,)) + b"s" for index in range(1000)
        ) + b".",
        s0=NOUGHTS,
    ),
    "nested_files_again_and_again.pkl": lambda: remembered(
        b"B" + struct.pack("<I", 2**20 + 300) + legacy(state(storage(2**18)), (2**18, NOUGHTS)).ljust(
            2**20 + 300, b"\0"
        ),
        glob("torch.storage._load_from_bytes") + b"h\x00\x85R", 1_000,
    ),
    "calls_with_many_arguments.pkl": lambda: remembered(
        b"(" + b"N" * 50_000 + b"t", glob("collections.OrderedDict") + b"h\x00R", 50_000
    ),
    "sizes_of_many_axes.pth": lambda: zipped(
        remembered(
            b"(" + b"K\x01" * 50_000 + b"t", REBUILD + b"(" + storage(1) + b"K\x00h\x00h\x00\x89}tR", 5_000
        ), s0=bytes(4),
    ),
    # depth and number
    "tuples_in_tuples.pkl": lambda: b"\x80\x02N" + b"\x85" * 150_000 + b".",
    "lists_in_lists.pkl": lambda: b"\x80\x02" + b"]" * 90_000 + b"a" * 89_999 + b".",
    "dicts_in_dicts.pkl": lambda: b"\x80\x02" + b"}K\x01" * 60_000 + b"N" + b"s" * 60_000 + b".",
    "lists_in_lists_by_memo.pkl": lambda: b"\x80\x02]q\x00" + b"".join(
        b"h%c]q%ca" % (turn % 2, (turn + 1) % 2) for turn in range(30_000)
    ) + b".",
    "many_dictionaries.pkl": lambda: b"\x80\x02](" + b"}" * 4_000_000 + b"e.",
    "many_marks.pkl": lambda: b"\x80\x02" + b"(" * 4_000_000,
    "many_members.pth": many_members,
    "many_tensors.safetensors": many_tensors,
    "product_of_long_integers.pkl": lambda: (
        b"\x80\x02](" + integer(1 << 2**22) + b"q\x00" + glob("numpy.core.numeric._frombuffer") + b"("
        + MEGABYTE + dtype("f4") + b"(" + b"h\x00" * 30 + b"t" + text("C") + b"tR" + b"e."
    ),
    "long_decimal.pkl": lambda: b"I" + b"9" * 2**20 + b"\n.",
    "long_decimal_size.pth": lambda: zipped(b"\x80\x02L" + b"9" * 2**20 + b"L\n."),
    # tensors beyond their storages
    "stride_of_127_bits.pth": lambda: zipped(
        b"\x80\x02" + tensor(6144, (1, 1, 96, 64), (2**127 - 1, 6144, 64, 1)) + b".", s0=bytes(4 * 6144)
    ),
    "expanded_to_4_tb.pth": lambda: zipped(state(tensor(1, (10**6, 10**6), (0, 0))), s0=bytes(4)),
    "expanded_to_2_eb.pth": lambda: zipped(state(tensor(1, (2**31, 2**28), (0, 0))), s0=bytes(4)),
    "expanded_log_mel.pth": lambda: zipped(
        b"\x80\x02" + tensor(1, (64, 1, 96, 64), (0, 0, 0, 0)) + b".", s0=bytes(4)
    ),
    "size_beyond_the_storage.pth": lambda: zipped(state(tensor(4, (5,), (1,))), s0=bytes(16)),
    "stride_beyond_the_storage.pth": lambda: zipped(state(tensor(4, (2, 2), (2**62, 1))), s0=bytes(16)),
    "offset_beyond_the_storage.pth": lambda: zipped(state(tensor(4, (1,), (1,), 4)), s0=bytes(16)),
    "offset_of_an_empty_tensor.pth": lambda: zipped(state(tensor(4, (0,), (1,), 2**40)), s0=bytes(16)),
    "storage_cut_short.pth": lambda: zipped(state(tensor(8, (8,), (1,))), s0=bytes(16)),
    "storage_absent.pth": lambda: zipped(state(tensor(8, (8,), (1,)))),
    "storage_of_4_tb_legacy.pth": lambda: legacy(state(tensor(2**40, (4,), (1,))), (2**40, bytes(16))),
    "storage_cut_short_legacy.pth": lambda: legacy(state(tensor(8, (8,), (1,))), (8, bytes(16))),
    "storage_that_never_comes.pkl": lambda: state(tensor(4, (4,), (1,))),
    # zip files
    "compressed_storage.pth": lambda: zipped(
        state(tensor(2**24, (2**24,), (1,))), zipfile.ZIP_DEFLATED, s0=bytes(2**26)
    ),
    "overlapping_members.pth": overlapping_members,
    "member_of_4_gb.pth": lambda: patched(b"PK\x01\x02", 20, struct.pack("<II", 2**32 - 2, 2**32 - 2)),
    "member_longer_than_its_data.pth": lambda: patched(b"PK\x01\x02", 24, struct.pack("<I", 100)),
    "directory_of_4_gb.pth": lambda: patched(b"PK\x05\x06", 12, struct.pack("<I", 2**32 - 2)),
    "part_of_escapes.pth": lambda: zipped(
        state(REBUILD + b"(" + storage(1, "\x1b[2J") + b"K\x00))\x89}tR"), s0=bytes(4)
    ),
    "name_of_a_surrogate.pth": lambda: zipped(state(tensor(1, (1,), (1,)), "\ud800"), s0=bytes(4)),
    "name_of_escapes.pth": lambda: zipped(state(tensor(1, (1,), (1,)), "\x1b[2J\n"), s0=bytes(4)),
    "name_of_a_megabyte.pth": lambda: zipped(state(tensor(1, (1,), (1,)), "a" * 2**20), s0=bytes(4)),
}
# fmt: on


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """The outcome of every case, by the file's name and the reader."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, make in CASES.items():
        (folder / name).write_bytes(make())
    return {(name, reader): outcome for name, reader, outcome in run_child(EACH, folder)}


@pytest.mark.parametrize("reader", ["weights", "log_mel"])
@pytest.mark.parametrize("name", CASES)
def test_hostile_files_are_refused_in_one_sentence(outcomes, name: str, reader: str) -> None:
    outcome = outcomes[name, reader]
    assert "refused" in outcome, outcome
    message = outcome["refused"]
    assert name in message
    assert len(message) < 700
    assert message.isprintable()
    assert outcome["seconds"] < 20


FORMATS: dict[str, Callable[[Any, Path], None]] = {
    "zip.pth": torch.save,
    "legacy.pth": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    "protocol2.pkl": lambda value, path: path.write_bytes(pickle.dumps(arrays(value), 2)),
    "protocol4.pkl": lambda value, path: path.write_bytes(pickle.dumps(arrays(value), 4)),
    "protocol5.pkl": lambda value, path: path.write_bytes(pickle.dumps(arrays(value), 5)),
}


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in tensors.items()}


def test_memory_stays_within_four_times_the_file(tmp_path: Path) -> None:
    """In addition to 32 MB; every format holds 40 MB of numbers."""
    generator = torch.Generator().manual_seed(0)
    value = {str(index): torch.rand(2**20, generator=generator) for index in range(10)}
    for name, save in FORMATS.items():
        save(value, tmp_path / name)
    for name, reader, outcome in run_child(EACH, tmp_path, multiple=4):
        if reader == "weights":
            assert outcome.get("read") == {key: [2**20] for key in value}, (name, outcome)


FUZZ = """
import pickle, random, zipfile, io

seed, count = int(sys.argv[2]), int(sys.argv[3])
generator = random.Random(seed)
originals = [(path.suffix, path.read_bytes()) for path in sorted(Path(sys.argv[1]).iterdir())]
opcodes = b"()}]NR0.abeltuqhrjst\\x81\\x85\\x86\\x87\\x8a\\x8b\\x93\\x94\\x95\\x96"

def mutate(content):
    content = bytearray(content)
    for _ in range(generator.randint(1, 6)):
        place = generator.randrange(len(content))
        kind = generator.random()
        if kind < 0.5:
            content[place] = generator.randrange(256)
        elif kind < 0.7:
            content[place:place] = bytes([generator.choice(opcodes)])
        elif kind < 0.85:
            end = place + generator.randint(1, 64)
            content[place:place] = content[place:end] * generator.randint(1, 8)
        else:
            del content[place : place + generator.randint(1, 16)]
    return bytes(content)

def mutate_member(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, mutate(part) if name.endswith("data.pkl") else part)
    return buffer.getvalue()

found = {"read": 0, "refused": 0, "seconds": 0.0, "failed": []}
for turn in range(count):
    suffix, content = originals[turn % len(originals)]
    path = Path(sys.argv[4]) / f"mutated{suffix}"
    inside = content.startswith(b"PK") and generator.random() < 0.8
    path.write_bytes(mutate_member(content) if inside else mutate(content))
    for read in (weights, log_mel):
        outcome = attempt(path, read)
        for key in ("read", "refused"):
            found[key] += key in outcome
        found["seconds"] = max(found["seconds"], outcome["seconds"])
        if "failed" in outcome:
            found["failed"].append([turn, read.__name__, outcome["failed"]])
found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(json.dumps(found))
"""


@pytest.mark.slow
def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "originals").mkdir()
    value = {
        "model": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.int64)},
        "lr": 0.1,
    }
    mel = torch.rand(5, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    for index, one in enumerate((value, OrderedDict(value["model"]), mel)):
        torch.save(one, tmp_path / "originals" / f"{index}.zip")
        torch.save(one, tmp_path / "originals" / f"{index}.old", _use_new_zipfile_serialization=False)
    for protocol in (2, 3, 4, 5):
        content = {"model": arrays(value["model"]), "best": np.float64(0.5)}
        (tmp_path / "originals" / f"arrays{protocol}").write_bytes(pickle.dumps(content, protocol))
    save_file(value["model"], tmp_path / "originals" / "state.safetensors")
    (tmp_path / "originals" / "mel").write_bytes(pickle.dumps(mel[:1, :, :4, :4].clone(), 4))
    seed = 20_271
    print(f"seed {seed}")
    (found,) = run_child(FUZZ, tmp_path / "originals", seed, 2_000, tmp_path, timeout=500)
    print(found)
    assert found["failed"] == []
    assert found["refused"] > 1_000
    assert found["read"] > 50
    assert found["seconds"] < 10
