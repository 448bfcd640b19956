"""Peak memory of the forward pass of TPAVI, one clip of five frames at 224 pixels: ``nox -s bench``."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Limit in GB above the process with torch imported; the published code builds a matrix of 0.98 GB.
LIMIT = 1.2

#: Print the growth of peak memory in GB, from /proc: ru_maxrss of a child starts at that of its parent.
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
    print(f"\ntpavi {backbone} {variant}: {grown:.2f} GB above the process with torch imported")
    # The weights alone take more than the lower bound: a smaller value would mean a failed measurement.
    assert 0.25 < grown < LIMIT
