"""``avsb weights``, and the commands that use imported weights."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from avsbench_harness.files import sha256_file
from avsbench_harness.nn.audio_encoder import CompactAudioEncoder
from avsbench_harness.weights import backbone_names

LOAD = """

class Published(TinyModel):
    def load_upstream(self, state):
        from avsbench_harness.weights.strict import load_renamed

        def rename(name):
            return None if name.startswith("vggish.") else name.removeprefix("net.")

        load_renamed(self, state, rename, what=f"tiny for {self.task.name}")
"""


def cached(avsb) -> list[dict[str, Any]]:
    """The listed weights without those of packages."""
    return [entry for entry in avsb("weights", "list", "--json").json if "package" not in entry]


@pytest.fixture
def method(tiny: str, tmp_path: Path) -> Path:
    """The tiny method, with published weights whose key prefix is ``net.``."""
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "model.py").write_text((folder / "model.py").read_text() + LOAD)
    plugin = (folder / "__init__.py").read_text()
    (folder / "__init__.py").write_text(plugin.replace("TinyModel", "Published"))
    return folder


@pytest.fixture
def published(avsb, method: Path, real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of a run with a frozen audio encoder, as its authors would publish them."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    torch.manual_seed(1)
    torch.save(CompactAudioEncoder().state_dict(), tmp_path / "compact.pth")
    assert avsb("weights", "add", "compact", tmp_path / "compact.pth").code == 0
    common = ("--method", method, "--data", real_s4, "--out", tmp_path / "authors", "--device", "cpu")
    assert avsb("train", *common, "--set", "audio.freeze=true", "--set", "epochs=1").code == 0
    (trained,) = (tmp_path / "authors" / "runs").glob("*/weights.safetensors")
    state = {f"module.net.{n.removeprefix('model.')}": v for n, v in load_file(trained).items()}
    state["module.vggish.features.0.weight"] = torch.zeros(2)
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "S4_best.pth")
    return tmp_path / "S4_best.pth"


def test_from_the_authors_file_to_a_record(
    avsb, published: Path, method: Path, real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("weights", "import", method, published, "--task", "s4", "--backbone", "r50")
    shown = avsb(*arguments)
    assert shown.code == 0, shown.err
    assert "no entry is missing; 1 of the file are unused (vggish 1)" in shown.out
    imported = avsb(*arguments, "--json").json
    assert imported["unused"] == ["vggish.features.0.weight"]
    assert imported["source_sha256"] == sha256_file(published)
    assert f"--weights {imported['name']}" in shown.out
    listed = cached(avsb)
    assert [entry["name"] for entry in listed] == ["compact", imported["name"]]
    assert published.name in avsb("weights", "list").out
    monkeypatch.setenv("COLUMNS", "62")
    rows = [line for line in avsb("weights", "list").out.splitlines() if line.startswith("│")]
    assert imported["name"] in "".join(row.split("│")[1].strip() for row in rows)  # whole, over lines

    common = ("--method", method, "--data", real_s4, "--out", tmp_path, "--device", "cpu")
    use = (*common, "--from-checkpoint", imported["name"])
    predicted = avsb("predict", *use, "--split", "val", "--json")
    assert Path(predicted.json["submission"]).is_file()
    record = avsb("run", *use, "--json").json
    assert record["spec"]["weights"]["sha256"] == sha256_file(published)
    assert record["training"]["steps"] == 0
    assert "not trained here" in avsb("run", *use).out
    assert (tmp_path / "results" / "LEADERBOARD.md").is_file()
    assert "without training" in avsb("train", *use).err
    assert avsb("train", *use).code == 2
    started = avsb("train", *common, "--init", imported["name"], "--set", "iterations=1", "--json")
    assert started.json["steps"] == 1, started.err


def test_files_that_could_run_code_are_refused(
    avsb, method: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "victim"),)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": {"net.head.weight": Evil()}}, 2))
    arguments = ("weights", "import", method, tmp_path / "evil.pkl", "--task", "s4", "--backbone", "r50")
    refused = avsb(*arguments)
    assert refused.code == 2
    assert "asks for the global" in refused.err
    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("weights", "add", "compact", "FILE"),
        ("weights", "import", "METHOD", "FILE", "--task", "s4", "--backbone", "r50"),
        ("predict", "--method", "METHOD", "--data", "DATA", "--weights", "FILE"),
        ("train", "--method", "METHOD", "--data", "DATA", "--init", "FILE"),
    ],
)
def test_every_command_that_reads_weights_refuses_arrays_of_objects(
    avsb, method: Path, real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    torch.save({"head.weight": np.array([None]), "head.bias": torch.zeros(1)}, tmp_path / "forged.pth")
    names = {"FILE": tmp_path / "forged.pth", "METHOD": method, "DATA": real_s4}
    refused = avsb(*(names.get(word, word) for word in command), *(
        ("--out", tmp_path) if command[0] != "weights" else ()
    ))  # fmt: skip
    assert refused.code == 2
    assert "forged.pth holds " in refused.err
    assert len(refused.err.strip().splitlines()) < 5
    assert not (tmp_path / "runs").exists()


def test_raw_and_ema_weights_of_one_file_are_two_entries(
    avsb, published: Path, method: Path, real_s4: Path, tmp_path: Path
) -> None:
    """They have different names, and different runs."""
    content = torch.load(published, weights_only=True)
    raw = content["state_dict"]
    torch.save({**content, "state_dict_ema": {name: 0.5 * value for name, value in raw.items()}}, published)
    arguments = ("weights", "import", method, published, "--task", "s4", "--backbone", "r50")
    shown = avsb(*arguments)
    assert "holds raw and EMA weights" in shown.err + shown.out
    one, two = avsb(*arguments, "--json").json, avsb(*arguments, "--ema", "--json").json
    assert (one["ema"], two["ema"]) == (False, True)
    assert two["name"] == f"{one['name']}-ema"
    assert two["source_sha256"] == one["source_sha256"]
    common = (
        "run",
        "--method",
        method,
        "--backbone",
        "r50",
        "--data",
        real_s4,
        "--out",
        tmp_path,
        "--device",
        "cpu",
    )
    specs = [avsb(*common, "--weights", entry["name"], "--dry-run", "--json").json for entry in (one, two)]
    assert [spec["spec"]["weights"]["file"] for spec in specs] == ["S4_best.pth", "S4_best.pth (EMA)"]
    assert len({spec["spec"]["weights"]["sha256"] for spec in specs}) == 2
    ambiguous = avsb(*common, "--weights", published, "--dry-run")
    assert (ambiguous.code, one["name"] in ambiguous.err, two["name"] in ambiguous.err) == (2, True, True)


def test_the_average_of_an_encoder_is_added(avsb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    raw, average = CompactAudioEncoder().state_dict(), CompactAudioEncoder().state_dict()
    torch.save({"state_dict": raw, "state_dict_ema": average}, tmp_path / "compact.pth")
    assert avsb("weights", "add", "compact", tmp_path / "compact.pth").code == 0
    added = avsb("weights", "add", "compact", tmp_path / "compact.pth", "--ema", "--json").json
    (stored,) = cached(avsb)
    assert stored == added
    assert stored["ema"] is True
    state = load_file(tmp_path / "cache" / "weights" / f"{stored['sha256']}.safetensors")
    assert all(torch.equal(state[name], value) for name, value in average.items())
    torch.save(raw, tmp_path / "raw.pth")
    refused = avsb("weights", "add", "compact", tmp_path / "raw.pth", "--ema")
    assert (refused.code, "holds no EMA weights" in refused.err) == (2, True)


def test_weights_of_another_tag_are_refused_unless_custom(
    avsb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(backbone_names.KNOWN_FILES, "resnet18.a1_in1k", ("0123456789",))
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "other.pth")
    refused = avsb("weights", "add", "resnet18", tmp_path / "other.pth")
    assert refused.code == 2
    assert "does not have the weights of 'resnet18', resnet18.a1_in1k" in refused.err
    assert "not with 01234567" in refused.err
    assert cached(avsb) == []
    assert avsb("weights", "add", "resnet18", tmp_path / "other.pth", "--custom").code == 0


def test_weights_in_packages_are_listed(avsb) -> None:
    # SHA-256 as `sha256sum` prints it for the file in the package.
    listed = {entry["name"]: entry for entry in avsb("weights", "list", "--json").json}
    lite0 = listed["tf_efficientnet_lite0.in1k"]
    assert lite0["sha256"].startswith("579344248a93e230")
    assert lite0["size"] == 18_826_032
    assert "compact-esc10" in avsb("weights", "list").out
