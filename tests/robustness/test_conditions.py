"""The audio of each condition."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.errors import UsageError
from avsbench_harness.robustness.conditions import condition_audio, condition_note, get_condition
from avsbench_harness.tasks import S4


def test_swapped_clips_have_the_audio_of_their_pairs(composed: Path) -> None:
    dataset = open_dataset(composed, S4)
    clean = {
        clip.id: np.full((5, 128), index, np.float32) for index, clip in enumerate(dataset.clips("test"))
    }
    pairs = get_condition("swapped").pairs
    assert pairs is not None
    sources = pairs(dataset, "test").sources
    found = condition_audio("swapped", dataset, "test", clean)
    assert set(found) == set(sources)
    assert len(found) == len(sources)
    for clip, source in sources.items():
        assert found[clip] is clean[source]
    assert condition_audio("clean", dataset, "test", clean) is clean


def test_the_note_names_the_pairs(composed: Path) -> None:
    dataset = open_dataset(composed, S4)
    pairs = get_condition("swapped").pairs
    assert pairs is not None
    assert condition_note("clean", dataset, "test") == ""
    expected = f"audio: swapped, pairs {pairs(dataset, 'test').fingerprint[:16]}"
    assert condition_note("swapped", dataset, "test") == expected


def test_unknown_conditions_and_data_without_pairs_are_refused(real_s4: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown audio condition 'swaped'. Did you mean 'swapped'?"):
        get_condition("swaped")
    root = Path(shutil.copytree(real_s4, tmp_path / "data"))
    table = root / "Single-source" / "s4_meta_data.csv"
    text = table.read_text()
    for category in ("whale", "trumpet"):
        text = text.replace(f"{category},test", "bird,test")
    table.write_text(text)
    with pytest.raises(UsageError, match="No two clips of the test split of .* have different kinds"):
        condition_audio("swapped", open_dataset(root, S4), "test", {})
