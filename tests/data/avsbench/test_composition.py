"""The files in ``objects`` of a composed data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data.avsbench.composition import read_composition, read_objects
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.errors import BadFileError
from avsbench_harness.data.mini import write_mini
from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import AVSS, S4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("composed") / "data"
    write_mini(root, [S4, AVSS], (0, 0, 2), seed=1, jobs=1)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.mark.parametrize("task", [S4, AVSS], ids=["s4", "avss"])
def test_files_are_found_for_every_clip(made: Path, task) -> None:
    """In avss ``mixte000001_0_10000`` of v2 has the files of ``mixte000001``."""
    dataset = open_dataset(made, task)
    for index, clip in enumerate(dataset.clips("test")):
        path = made / "objects" / task.name / "test" / f"mixte{index:06d}.json"
        facts = json.loads(path.read_text())
        found = read_composition(dataset, "test", clip)
        assert [one.kind for one in found.objects] == [one["kind"] for one in facts["objects"]]
        sounding = {facts["objects"][sound["object"]]["kind"] for sound in facts["sounds"]}
        assert found.sounding_kinds == sounding
        pixels = np.asarray(Image.open(path.with_suffix(".png")))
        objects = read_objects(dataset, "test", clip)
        assert objects.shape == (len(clip.frames), 224, 224)
        assert (objects[1] == pixels[224:448]).all()


def test_the_root_is_found_from_the_folder_of_the_task(made: Path) -> None:
    dataset = open_dataset(made / "Single-source", S4)
    assert read_composition(dataset, "test", dataset.clips("test")[0]).objects


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": 1}, "Unknown key 'more'"),
        ({"objects": []}, "has a sound of an object that it does not list"),
        ({"objects": [{"kind": "", "picture": "x"}]}, "is not the description of a composed clip"),
        (None, "is not a JSON object"),
    ],
)
def test_malformed_descriptions_are_refused(root: Path, change: dict | None, message: str) -> None:
    path = root / "objects" / "s4" / "test" / "mixte000000.json"
    path.write_text(json.dumps(change and {**json.loads(path.read_text()), **change}))
    dataset = open_dataset(root, S4)
    with pytest.raises(BadFileError, match=rf"mixte000000\.json .*{message}"):
        read_composition(dataset, "test", dataset.clips("test")[0])


def test_missing_files_and_other_shapes_are_refused(root: Path) -> None:
    dataset = open_dataset(root, S4)
    one, two = dataset.clips("test")
    folder = root / "objects" / "s4" / "test"
    (folder / f"{one.id}.json").unlink()
    with pytest.raises(MissingDataError, match=rf"no file .*{one.id}\.json"):
        read_composition(dataset, "test", one)
    Image.fromarray(np.zeros((224, 224), np.uint8)).save(folder / f"{two.id}.png")
    with pytest.raises(BadFileError, match=r"has the shape \(224, 224\), where 5 grey frames"):
        read_objects(dataset, "test", two)
