"""The audio of each condition."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.errors import UsageError
from avsbench_harness.robustness.conditions import (
    CONDITIONS,
    choose_conditions,
    condition_audio,
    condition_note,
    get_condition,
    unavailable,
)
from avsbench_harness.tasks import MS3, S4


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
    assert condition_note("silence", dataset, "test") == "audio: silence, version 1"
    assert condition_note("mixed@-5", dataset, "test").startswith("audio: mixed@-5, pairs ")
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
    with pytest.raises(UsageError, match="The test split of .*'swapped': no two clips have different kinds"):
        condition_audio("swapped", open_dataset(root, S4), "test", {})


def test_conditions_are_chosen_by_name() -> None:
    assert choose_conditions(()) == (
        "clean", "silence", "noise-white", "noise-pink", "swapped", "mixed@10", "mixed@0", "mixed@-10",
    )  # fmt: skip
    assert choose_conditions(["mixed@-5", "silence"]) == ("clean", "silence", "mixed@-5")
    every = choose_conditions(["all"])
    assert len(every) == 13
    assert {name for name in every if get_condition(name).negative} == {
        "silence", "noise-white", "noise-pink", "swapped",
    }  # fmt: skip
    assert [get_condition(name).snr for name in every if name.startswith("mixed")] == [20, 10, 5, 0, -5, -10]
    with pytest.raises(UsageError, match="Unknown audio condition 'mixed@3'"):
        choose_conditions(["mixed@3"])


def test_data_without_recordings_lack_conditions(composed: Path) -> None:
    dataset = open_dataset(composed, MS3)
    assert [name for name in CONDITIONS if unavailable(name, dataset, "test")] == []
    assert unavailable("shifted@1", open_dataset(composed, S4), "test") == (
        "it is not meant for s4, whose objects sound all the time"
    )

    class Pickled(Dataset):
        def clips(self, split):
            return [replace(clip, audio=None, logmel=Path("x.pkl")) for clip in super().clips(split)]

    pickled = Pickled(**vars(dataset))
    reasons = {name: unavailable(name, pickled, "test") for name in CONDITIONS}
    assert [name for name, reason in reasons.items() if reason is None] == ["clean", "silence", "swapped"]
    assert reasons["noise-pink"] == "6 of 6 clips have a log-mel pickle, but no recording to change"
