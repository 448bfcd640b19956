"""Masks of an unfinished segmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.errors import Busy
from avsbench_harness.video.mask_store import open_store
from avsbench_harness.video.windows import Window

WINDOW = Window(index=0, start=0, first=1, seconds=3, padded=True, kept=(0, 2))  # type: ignore[arg-type]
LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_masks_of_an_interrupted_segmentation_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    with pytest.raises(RuntimeError), open_store(folder, {"fps": 2}) as masks:  # noqa: PT012
        masks.write(1, LABELS)
        assert not masks.has(WINDOW, 2)
        masks.write(5, LABELS)
        assert masks.has(WINDOW, 2)
        raise RuntimeError
    assert np.array_equal(np.asarray(Image.open(folder / "0000005.png")), LABELS)
    with open_store(folder, {"fps": 2}) as masks:
        assert masks.has(WINDOW, 2)
        assert np.array_equal(masks.read(1), LABELS)
    assert not folder.exists()


def test_masks_of_another_key_are_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_store(tmp_path / "m", {"fps": 2}) as masks:  # noqa: PT012
        masks.write(1, LABELS)
        raise RuntimeError
    with open_store(tmp_path / "m", {"fps": 1}) as masks:
        assert not list(masks.folder.glob("*.png"))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with open_store(tmp_path / "m", {}), pytest.raises(Busy), open_store(tmp_path / "m", {}):
        pass
