"""The guide for hosts: its commands run in a shell, in their order, as they are printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

for _package in ("sqlalchemy", "starlette", "uvicorn", "python_multipart"):
    pytest.importorskip(_package, reason="needs the extra host")

ROOT = Path(__file__).parents[2]

#: ``avsb`` with an AVS-Mini of few clips.
PROGRAM = f"""#!{sys.executable}
import sys
from avsbench_harness import cli
from avsbench_harness.data.mini import write
write.CLIPS = (2, 1, 6)
if __name__ == "__main__":
    cli.main()
"""


def commands() -> list[str]:
    text = (ROOT / "docs" / "hosting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def fix_a_mask(cache: Path) -> None:
    """Change the masks of one test clip, as a host does before a rescoring."""
    for mask in sorted(cache.glob("mini/ms3-*/Multi-sources/ms3_data/gt_masks/test/*/*.png"))[:30]:
        pixels = np.asarray(Image.open(mask))
        Image.fromarray(np.where(pixels > 0, 0, 255).astype(np.uint8)).save(mask)


def serve(command: str, environment: dict[str, str], folder: Path) -> None:
    """Start the server, load its board, and stop it."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"], env=environment, cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(120):
            try:
                with urllib.request.urlopen("http://127.0.0.1:8027/board", timeout=5) as answer:
                    assert "Team A" in answer.read().decode()
                    return
            except OSError:
                assert process.poll() is None
                time.sleep(0.5)
        raise TimeoutError
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_the_commands_of_the_guide(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "avsb"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    cache = tmp_path / "cache"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "AVSB_CACHE_DIR": str(cache),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("AVSB_DATA_DIR", None)
    outputs = {}
    for command in commands():
        if command.startswith("pip install"):
            continue
        if " serve " in command:
            serve(command, environment, tmp_path)
            continue
        if " rescore " in command:
            fix_a_mask(cache)
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        outputs[command] = done.stdout
    text = "\n".join(outputs.values())
    assert "1 new, 1 scored" in text
    assert "version 2: 1 rows of the public board differ from version 1" in text
    assert "2 scores recomputed, 0 faults" in text
    assert json.loads((tmp_path / "board" / "board.json").read_text())[0]["rows"][0]["team"] == "Team A"
    assert (tmp_path / "codabench.zip").stat().st_size > 1000
    assert shutil.which("avsb", path=environment["PATH"]) == str(program)
