"""The wheel is complete: its methods run outside the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "iterations=1", "image_size=64", "options.queries=4", "options.dim=32", "options.encoder_layers=1",
    "options.decoder_layers=1", "options.generator_layers=1", "options.mask_mlp_dim=8",
)  # fmt: skip


@pytest.mark.slow
def test_methods_and_run_work_from_the_wheel(tmp_path: Path, real_s4: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Build from a clone, to include only committed files and leave the source tree unchanged.
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(source)], check=True)
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    site, away = tmp_path / "site", tmp_path / "away"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    away.mkdir()

    def avsb(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "avsbench_harness", *arguments],
            cwd=away,
            env={**os.environ, "PYTHONPATH": str(site)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout

    where = "import avsbench_harness as a, avsbench_methods as b; print(a.__file__, b.__file__)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", where],
        cwd=away,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.split()
    assert all(path.startswith(str(site)) for path in found)
    assert "avsegformer" in [entry["name"] for entry in json.loads(avsb("methods", "--json"))]
    assert "AVSegFormer" in avsb("methods", "avsegformer")
    changes = [part for change in SMALL for part in ("--set", change)]
    network = ["--method", "avsegformer", "--backbone", "resnet10t"]
    place = ["--data", str(real_s4), "--device", "cpu"]
    record = json.loads(avsb("run", *network, *place, "--preset", "smoke", "--json", *changes))
    assert record["scores"][0]["metrics"]["J"] is not None
    assert (away / "results" / "LEADERBOARD.md").is_file()
