"""Random log-mel pickles are read or refused with one sentence, in bounded time and memory."""

from __future__ import annotations

import io
import pickle
import random
import resource
import time

import numpy as np
import pytest
import torch

from avsbench_harness.data.audio.logmel import log_mel_examples, read_log_mel_pickle
from avsbench_harness.errors import AvsbError

FILES = 2000
OPCODES = b"}]()tlduscbR\x93\x92\x81\x85\x86\x87QPh2q.\x80"


def originals() -> list[bytes]:
    """A tensor pickled plainly, saved by torch, and as a numpy array."""
    examples = log_mel_examples(np.random.default_rng(1).uniform(-0.5, 0.5, 16_000))
    saved = io.BytesIO()
    torch.save(torch.from_numpy(examples), saved)
    plain = pickle.dumps(torch.from_numpy(examples))
    return [plain, pickle.dumps(torch.from_numpy(examples), 4), saved.getvalue(), pickle.dumps(examples)]


def changed(content: bytes, rng: random.Random) -> bytes:
    """Change bytes near the ends, where the opcodes are, or anywhere."""
    result = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        near = min(rng.choice([200, 2000, 10**9]), len(result) or 1)
        at = rng.choice([rng.randrange(near), max(0, len(result) - 1 - rng.randrange(near))])
        kind = rng.randrange(5)
        if kind == 0 and result:
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            result[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, rng.randbytes(4), b"\xff\xff\xff\x7f"])
        elif kind == 2:
            result[at:at] = bytes(rng.choice(OPCODES) for _ in range(rng.choice([1, 2, 8])))
        elif kind == 3:
            del result[at : at + rng.choice([1, 4, 100])]
        else:
            del result[at:]
    return bytes(result)


@pytest.mark.slow
def test_random_pickles(tmp_path):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    files, path = originals(), tmp_path / "clip.pkl"
    before, slowest, accepted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0, 0
    for _ in range(FILES):
        path.write_bytes(changed(rng.choice(files), rng))
        start = time.process_time()
        refusal = None
        try:
            examples = read_log_mel_pickle(path)
        except AvsbError as error:
            refusal = error
        if refusal is not None:
            assert refusal.exit_code == 2
            assert "\n" not in str(refusal)
        else:
            accepted += 1
            assert examples.shape[1:] == (1, 96, 64)
            assert np.isfinite(examples).all()
        slowest = max(slowest, time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{accepted} of {FILES} accepted, slowest {slowest:.2f} s, {grown:.0f} MB")
    assert 0 < accepted < FILES
    assert slowest < 1
    assert grown < 100
