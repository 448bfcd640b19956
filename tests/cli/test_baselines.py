"""``avsb data baselines``."""

from __future__ import annotations

from pathlib import Path

from avsbench_harness.data.mini import write_mini
from avsbench_harness.tasks import MS3


def test_trivial_predictions_of_composed_data(avsb, tmp_path: Path) -> None:
    write_mini(tmp_path / "mini", [MS3], (0, 0, 2), seed=1, jobs=1)
    found = avsb("data", "baselines", tmp_path / "mini", "--task", "ms3", "--json")
    assert found.code == 0, found.err
    assert list(found.json) == ["nothing", "everything", "every object"]
    assert {one["protocol"] for one in found.json.values()} == {"object/1"}
    shown = avsb("data", "baselines", tmp_path / "mini", "--task", "ms3")
    assert "AVS-Mini v1 variant, ms3 test, object/1, 2 clips" in shown.out
    assert f"{found.json['every object']['metrics']['J']:.4f}" in shown.out
    (tmp_path / "mini" / "objects" / "ms3" / "test" / "mixte000001.png").unlink()
    assert avsb("data", "baselines", tmp_path / "mini", "--task", "ms3").code == 4


def test_bad_input_is_refused(avsb, real_s4: Path, tmp_path: Path) -> None:
    assert avsb("data", "baselines", "--task", "s4").code == 4
    assert avsb("data", "baselines", tmp_path, "--task", "s4").code == 4
    assert avsb("data", "baselines", real_s4, "--task", "s5").code == 2
    train = avsb("data", "baselines", real_s4, "--task", "s4", "--split", "train")
    assert train.code == 4
    assert "the train split cannot be scored; use val or test" in train.err
