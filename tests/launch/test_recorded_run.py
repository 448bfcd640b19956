"""Commands on runs that were made, without the options that they were trained with."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbench_harness.engine.train import train
from avsbench_harness.errors import UsageError
from avsbench_harness.files import sha256_file
from avsbench_harness.launch.execute import predict
from avsbench_harness.launch.recorded_run import recorded_run
from avsbench_harness.submission import read_submission

CHANGED = ("options.width=4", "optimizer.lr=0.01", "epochs=1")


@pytest.fixture
def trained(planned, tmp_path: Path):
    """A run with a changed recipe."""
    run = planned(tmp_path, *CHANGED)
    train(run)
    return run


def test_predict_takes_a_prefix(avsb, trained, tiny: str, real_s4: Path) -> None:
    expected = predict(trained, "val")
    digest = sha256_file(expected)
    expected.unlink()
    place = ("--out", trained.out, "--data", real_s4, "--method", tiny, "--device", "cpu")
    result = avsb("predict", trained.id[:-4], *place, "--split", "val", "--json")
    assert result.code == 0, result.err
    assert result.json["run"] == trained.id
    assert Path(result.json["submission"]).resolve() == expected.resolve()
    assert sha256_file(expected) == digest
    for option, value in (("--task", "s4"), ("--seed", 1), ("--set", "epochs=2"), ("--preset", "full")):
        refused = avsb("predict", trained.id, *place, option, value)
        assert refused.code == 2
        assert f"{option} describes another run than {trained.id}; leave it out." in refused.err
    unknown = avsb("predict", "nothing", *place)
    assert unknown.code == 2
    assert "Unknown run 'nothing'." in unknown.err
    assert avsb("predict").err.startswith("error: Missing option '--method'")


def test_a_run_that_is_planned_again_has_the_same_spec(trained, tiny: str, real_s4: Path) -> None:
    options = {"method": tiny, "data": real_s4, "out": trained.out, "device": "cpu", "workers": 0, "seed": 0}
    again = recorded_run(trained.id[:-3], options, plan_again=True)
    assert again.spec == trained.spec
    with pytest.raises(UsageError, match="--pretrained describes another run"):
        recorded_run(trained.id, {**options, "pretrained": False}, plan_again=True)


def test_inspect_takes_a_run(avsb, trained, tiny: str, real_s4: Path) -> None:
    place = ("--out", trained.out, "--data", real_s4, "--method", tiny, "--device", "cpu")
    result = avsb("inspect", "gradients", trained.id, *place, "--steps", "1", "--json")
    assert result.code == 0, result.err
    assert result.json["run"] == trained.id


def test_weights_of_a_run_bring_its_recipe(avsb, trained, tiny: str, real_s4: Path) -> None:
    """``options.width`` need not be repeated, and may be overridden."""
    common = ("--method", tiny, "--data", real_s4, "--out", trained.out, "--device", "cpu")
    result = avsb("predict", *common, "--from-checkpoint", trained.id[:-4], "--json")
    assert result.code == 0, result.err
    own = predict(trained, "test")
    with read_submission(own) as one, read_submission(Path(result.json["submission"])) as two:
        for clip in one.shapes:
            assert (one.read(clip) == two.read(clip)).all()
    other = avsb("predict", *common, "--weights", trained.id, "--set", "options.width=8")
    assert other.code == 2


def test_method_task_and_backbone_come_from_the_weights(avsb, real_s4: Path, tmp_path: Path) -> None:
    common = ("--data", real_s4, "--out", tmp_path, "--device", "cpu", "--no-pretrained", "--preset", "smoke")
    small = ("--set", "iterations=1", "--set", "image_size=96")
    assert avsb("train", "--method", "tpavi", "--backbone", "resnet18", *common, *small).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    place = ("--data", real_s4, "--out", tmp_path, "--device", "cpu")
    shown = avsb("run", "--weights", folder.name[:12], *place, "--dry-run", "--json")
    assert shown.code == 0, shown.out
    spec = shown.json["spec"]
    assert (spec["method"], spec["backbone"], spec["task"]) == ("tpavi", "resnet18", "s4")
    assert spec["recipe"]["image_size"] == 96
    assert spec["weights"]["file"] == f"{folder.name}/weights.safetensors"
    started = avsb("run", "--init", folder.name[:12], *place, "--preset", "smoke", "--dry-run", "--json")
    assert started.json["spec"]["backbone"] == "resnet18"
    assert started.json["spec"]["init"]["file"] == f"{folder.name}/weights.safetensors"
    assert started.json["spec"]["recipe"]["image_size"] == 64  # a new training has a recipe of its own
