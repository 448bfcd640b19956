"""The wheel is complete: its methods run outside the source tree, and its media have their licences."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "iterations=1", "image_size=64", "options.queries=4", "options.dim=32", "options.encoder_layers=1",
    "options.decoder_layers=1", "options.generator_layers=1", "options.mask_mlp_dim=8",
)  # fmt: skip


PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]

#: Licences of the media of AVS-Mini, all of which permit redistribution.
LICENCES = {"CC0", "CC-BY", "CC-BY-4.0", "Apache-2.0", "MIT"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a clone, to include only committed files and leave the source tree unchanged."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(source)], check=True)
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)], check=True
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_every_recording_and_picture_has_author_and_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (notice,) = (name for name in names if name.endswith("licenses/NOTICE"))
        for word in ("ESC-10", "Noto", "Twemoji", "Fluent", "CC0 1.0", "CC-BY 3.0", "CC-BY 4.0", "MIT"):
            assert word in archive.read(notice).decode()
        for table, folder, suffix in (("sounds", "sounds", ".ogg"), ("pictures", "pictures", ".png")):
            place = "avsbench_harness/data/mini/media"
            text = archive.read(f"{place}/{table}.csv").decode()
            rows = list(csv.DictReader(io.StringIO(text)))
            files = [name for name in names if name.startswith(f"{place}/{folder}/")]
            assert all(name.endswith(suffix) for name in files)
            assert sorted(Path(name).name for name in files) == sorted(row["file"] for row in rows)
            assert all(row["author"].strip() for row in rows)
            assert {row["licence"] for row in rows} <= LICENCES


@pytest.mark.slow
def test_methods_and_run_work_from_the_wheel(wheel: Path, tmp_path: Path, real_s4: Path) -> None:
    site, away = tmp_path / "site", tmp_path / "away"
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
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
