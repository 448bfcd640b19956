"""Fixtures of the tests of videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.testing.videos import LOSSLESS, write_test_video


@pytest.fixture(scope="session")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 2 s, 64 x 48 pixels, 10 frames per second, whose pixels and samples are kept."""
    return write_test_video(tmp_path_factory.mktemp("videos") / "lossless.mkv", codecs=LOSSLESS)
