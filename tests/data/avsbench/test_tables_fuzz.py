"""Random tables are read or refused with one sentence, in bounded time and memory."""

from __future__ import annotations

import random
import resource
import time

import pytest

from avsbench_harness.data.avsbench import tables
from avsbench_harness.data.clip import is_clip_id
from avsbench_harness.errors import AvsbError

FILES = 2000
READERS = {
    "s4": (tables.read_s4, "name,start,category,split\n-a_1,0,dog_barking,train\n_b,6,race_car,test\n"),
    "ms3": (tables.read_ms3, "video_id,split\na b,train\nxv7eM6-UmkY_36,val\n"),
    "avss": (tables.read_avss, "vid,uid,s_min,s_sec,a_obj,split,label\na,a_0_5000,0,0,dog,train,v2\n"),
    "rebuilt": (tables.rebuild_s4, "vid,uid,s_min,s_sec,a_obj,split,label\na,a_0_5000,0,0,dog,train,v1s\n"),
}
PIECES = [
    b",", b";", b" ", b"\t", b'"', b'""', b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"../",
    b"/etc/passwd", b"\xed\xa0\x80", "\u202e".encode(), b"header", b"train", b"split,", b"a" * 5000,
    b"," * 5000, b"\x1b[31m",
]  # fmt: skip


def changed(content: bytes, rng: random.Random) -> bytes:
    result = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(result) + 1)
        kind = rng.randrange(5)
        if kind == 0 and result:
            result[at % len(result)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del result[at : at + rng.choice([1, 3, 20])]
        elif kind == 2:
            result[at:at] = rng.choice(PIECES)
        elif kind == 3:
            result = result.replace(b",", rng.choice([b";", b"\t", b" , ", b","]))
        else:
            result += rng.choice([result * rng.choice([1, 20]), rng.randbytes(30)])
    return bytes(result[:2_000_000])


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_random_tables(tmp_path, name):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    read, original = READERS[name]
    path = tmp_path / "table.csv"
    before, slowest, accepted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0, 0
    for _ in range(FILES):
        path.write_bytes(changed(original.encode(), rng))
        start = time.process_time()
        refusal = None
        try:
            rows = read(path)
        except AvsbError as error:
            refusal = error
        if refusal is not None:
            assert refusal.exit_code == 2
            assert str(path) in str(refusal)
            assert str(refusal).isprintable()
            assert len(str(refusal)) < 1000
        else:
            accepted += 1
            assert all(is_clip_id(row.id) and row.category.isprintable() for row in rows)
        slowest = max(slowest, time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{name}: {accepted} of {FILES} accepted, slowest {slowest:.2f} s, {grown:.0f} MB")
    assert 0 < accepted < FILES
    assert slowest < 1
    assert grown < 100
