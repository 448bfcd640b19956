"""Choice of gallery clips, and copies of their audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from avsbench_harness.data.clip import Clip
from avsbench_harness.leaderboard.gallery import _copy_audio, choose_clips


def test_clips_are_chosen_by_score_and_by_disagreement() -> None:
    table = pd.DataFrame({"clip": list("abcdefgh"), "J": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, np.nan]})
    others = pd.Series(dict.fromkeys("abcdefgh", 0.3))
    chosen = choose_clips(table, "J", others)
    by_kind = {kind: [clip for k, clip, _ in chosen if k == kind] for kind, _, _ in chosen}
    assert by_kind == {
        "best": ["g", "f"], "median": ["e", "d"], "worst": ["b", "a"], "disagreement": ["g", "f"],
    }  # fmt: skip
    assert {kind for kind, _, _ in choose_clips(table.head(1), "J", None)} == {"best", "median", "worst"}


def test_clips_with_the_same_id_keep_their_own_audio(tmp_path: Path) -> None:
    """Clip ids are the same in every synthetic data set."""
    found = set()
    for name, loudness in (("one", 0.1), ("two", 0.5)):
        sound = tmp_path / f"{name}.wav"
        soundfile.write(sound, np.full(16000, loudness), 16000)
        clip = Clip("synte000000", (sound,), (None,), sound, None, "", "s4")
        found.add(_copy_audio(clip, tmp_path / "site"))
        assert (
            tmp_path / "site" / _copy_audio(clip, tmp_path / "site")[1]
        ).read_bytes() == sound.read_bytes()
    assert len({waveform for waveform, _ in found}) == len({audio for _, audio in found}) == 2
