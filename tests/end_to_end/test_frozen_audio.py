"""Runs with a frozen audio encoder, as in all five papers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from avsbench_harness.files import sha256_file
from avsbench_harness.nn.vggish import VGGish


@pytest.mark.slow
def test_vggish_weights_in_the_store_are_frozen_and_recorded(
    avsb, tiny: str, real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    torch.manual_seed(0)
    file = tmp_path / "vggish.pth"
    torch.save(VGGish().state_dict(), file)
    digest = sha256_file(file)
    named = file.rename(tmp_path / f"vggish-{digest[:8]}.pth")
    wrong = tmp_path / "vggish-00000000.pth"
    wrong.hardlink_to(named)
    assert avsb("weights", "add", "vggish", wrong).code == 2
    assert avsb("weights", "add", "vggish", named).code == 0

    ahead = avsb("data", "cache", real_s4, "--task", "s4", "--json").json
    assert {part["audio"]["form"] for part in ahead} == {"embeddings"}
    (kept,) = (tmp_path / "cache" / "embeddings").glob("*/data.bin")
    before = kept.stat().st_mtime_ns
    problem = "lasts 2.7 s, but its clip 5 s"  # of dog_01.ogg, stored beside its embeddings
    assert kept.stat().st_size == 9 * 5 * 128 * 4 + len(problem)

    common = ("run", "--method", tiny, "--data", real_s4, "--out", tmp_path, "--device", "cpu", "--json")
    frozen = ("--set", "audio.encoder=vggish", "--set", "audio.freeze=true", "--set", "epochs=1")
    record = avsb(*common, *frozen).json
    assert record["spec"]["audio"] == {"encoder": "vggish", "weights": digest, "trained": False}
    assert not any("audio encoder" in note for note in record["notes"])
    assert kept.stat().st_mtime_ns == before  # the run reused the cached embeddings

    trained = avsb(*common, *frozen[:2], "--set", "audio.freeze=false", "--set", "iterations=1").json
    assert trained["spec"]["audio"]["trained"]
    assert "The audio encoder (vggish) was trained with the model, not frozen." in trained["notes"]
