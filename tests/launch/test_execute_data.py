"""Execution of a run on damaged data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.errors import AvsbError
from avsbench_harness.launch.execute import execute
from avsbench_harness.results.record import read_record


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("visual_frames", "cannot be read as an image"),
        ("audio_wav", "cannot be read as wav, flac or ogg"),
        ("gt_masks", "has the value 128"),
    ],
)
def test_damaged_test_data_are_found_before_training(
    planned, real_s4: Path, tmp_path: Path, monkeypatch, kind: str, message: str
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    data = tmp_path / "data"
    shutil.copytree(real_s4, data)
    path = next(path for path in sorted(data.glob(f"**/{kind}/test/**/*")) if path.is_file())
    if kind == "gt_masks":
        Image.fromarray(np.full((224, 224), 128, np.uint8)).save(path)
    else:
        path.write_bytes(bytes(100))
    run = planned(tmp_path / "out", data=data)
    with pytest.raises(AvsbError, match=message):
        execute(run)
    assert not run.folder.exists()
    record = read_record(run.record_file)
    assert record.status == "failed"
    assert message in (record.reason or "")
