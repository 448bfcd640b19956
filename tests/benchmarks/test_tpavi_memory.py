"""Peak memory of TPAVI's forward pass, one clip of five frames at 224: ``pytest tests/benchmarks -s``."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: GB above the process with torch loaded; the published code builds a matrix of 0.98 GB alone.
LIMIT = 1.2

#: Prints the growth of the process's peak in GB: /proc's, as a child's ru_maxrss starts at its parent's.
PROGRAM = """
import pathlib, re, resource, sys
import torch
from avsbench_harness.data.random_batch import random_batch
from avsbench_harness.method import build
from avsbench_harness.tasks import get_task

def peak():
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

torch.set_num_threads(2)
before = peak()
model = build("tpavi", task="s4", backbone=sys.argv[1], variant=sys.argv[2]).eval()
with torch.no_grad():
    model(random_batch(get_task("s4")))
print((peak() - before) / 1e9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("backbone", ["r50", "pvt"])
def test_forward(backbone: str, variant: str) -> None:
    command = [sys.executable, "-c", PROGRAM, backbone, variant]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    grown = float(done.stdout)
    print(f"\ntpavi {backbone} {variant}: {grown:.2f} GB above the process with torch loaded")
    # The weights alone are there: a number below them would mean that nothing was measured.
    assert 0.25 < grown < LIMIT
