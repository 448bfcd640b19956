"""The guide to own videos: its commands and its notebook are executed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import soundfile
from PIL import Image

from avsbench_harness.testing.videos import write_test_video
from avsbench_harness.video.probe import probe

DOCS = Path(__file__).parents[2] / "docs"


def test_the_notebook_runs(
    untrained: Callable[[str], Path], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Every cell as it is, except for the one with the parameters."""
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    write_test_video(tmp_path / "concert.mp4", seconds=6)
    notebook = json.loads((DOCS / "own_video.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    values = {"video": "concert.mp4", "model_name": str(untrained("avss")), "runs": ".", "method": tiny}
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", []):
            exec(source, names)  # the parameters have these names
            assert set(values) == {name for name in names if not name.startswith("__")}
            names |= values
        else:
            exec(compile(source, "cell", "exec"), names)
    assert names["masks"].shape == (6, 48, 64)
    assert probe(tmp_path / "overlay.mp4").seconds == pytest.approx(6, abs=0.1)
    assert (tmp_path / "masks" / "concert.coco.json").is_file()
    printed = capsys.readouterr().out
    assert "0.00 to   1.00 s:" in printed
    assert "of the pixels change without sound" in printed


def test_the_commands_run(
    avsb, untrained: Callable[[str], Path], tiny: str, real_s4: Path, tmp_path: Path, monkeypatch
) -> None:
    """With a video, a run and a method in place of the names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVSB_DATA_DIR", str(real_s4))
    write_test_video(tmp_path / "concert.mp4")
    write_test_video(tmp_path / "interview.mkv")
    for clip in ("clips/a", "clips/b"):
        Path(clip).mkdir(parents=True)
        for frame in (1, 2):
            Image.new("RGB", (32, 32), (40 * frame, 90, 10)).save(f"{clip}/{frame}.png")
        soundfile.write(f"{clip}/sound.wav", np.zeros(32_000), 16_000)
    text = (DOCS / "own_video.md").read_text(encoding="utf-8")
    executed = 0
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for command in block.splitlines():
            words = shlex.split(command.replace("RUN-ID", str(untrained("s4"))).replace("METHOD", tiny))
            if words[0] != "avsb":
                continue
            method = ["--method", tiny] if words[1] == "segment" else []
            result = avsb(*words[1:], *method, "--device", "cpu")
            assert result.code == 0, f"{command}: {result.err}"
            executed += 1
    assert executed == 7
    assert Path("concert-segmented.mp4").is_file()
    assert Path("overlays/interview-segmented.mp4").is_file()
    assert Path("masks/concert.coco.json").is_file()
    assert len(list(Path("submissions").glob("*-val-step*.npz"))) == 3
