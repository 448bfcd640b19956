from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data import propagate as module
from avsbench_harness.data.avsbench.layout import Dataset, open_dataset
from avsbench_harness.data.clip_source import FileDecoder
from avsbench_harness.data.loader import ClipDataset, in_order, load
from avsbench_harness.data.masks import read_object_mask
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.tasks import AVSS, MS3, S4

STEP = 5


def moving_square(frames: int, size: int = 96) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames of a textured square that moves over a textured background, and its masks."""
    draw = np.random.default_rng(0)
    ground = np.repeat(np.repeat(draw.integers(0, 120, (size // 4, size // 4)), 4, 0), 4, 1)
    square = np.repeat(np.repeat(draw.integers(130, 256, (8, 8)), 4, 0), 4, 1)
    pictures, masks = [], []
    for frame in range(frames):
        picture, mask, start = ground.copy(), np.zeros((size, size), np.uint8), 16 + STEP * frame
        picture[start : start + 32, start : start + 32] = square
        mask[start : start + 32, start : start + 32] = 1
        pictures.append(np.repeat(picture[:, :, None], 3, 2).astype(np.uint8))
        masks.append(mask)
    return pictures, masks


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / (one | two).sum())


@pytest.mark.parametrize("flow", module.FLOWS)
def test_a_mask_follows_a_moving_object(flow: str) -> None:
    frames, masks = moving_square(4)
    carried = module.propagate_mask(masks[0], frames, module.FLOWS[flow])
    assert len(carried) == 3
    for truth, mask in zip(masks[1:], carried, strict=True):
        assert mask.dtype == np.uint8
        assert iou(mask, truth) > iou(masks[0], truth) + 0.1
    assert iou(carried[0], masks[1]) > 0.85


@pytest.fixture
def dataset(real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The real training clips, whose later frames are not annotated, an empty cache, and a fast flow."""
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(module.FLOWS, "ilk", lambda frame, _: np.full((2, *frame.shape), 3.0, np.float32))
    return open_dataset(real_s4, S4)


def test_an_interrupted_call_is_resumed(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = dataset.clips("train")
    folder = module.pseudo_mask_folder(dataset, "ilk")
    done: list[int] = []
    assert module.propagate(dataset, "ilk", jobs=1, progress=done.append) == 4 * len(clips)
    assert done == [1] * len(clips)
    first, *rest = (path for clip in clips for path in module.missing_mask_paths(clip).values())
    old = {path: (folder / path).stat().st_mtime_ns for path in rest}
    (folder / first).unlink()
    assert module.propagate(dataset, "ilk", jobs=1) == 1
    assert {path: (folder / path).stat().st_mtime_ns for path in rest} == old
    monkeypatch.setitem(module.FLOWS, "ilk", lambda *_: pytest.fail("was made again"))
    assert module.propagate(dataset, "ilk", jobs=1) == 0


def test_training_clips_get_masks_for_all_frames(dataset: Dataset) -> None:
    clips = dataset.clips("train")
    with pytest.raises(MissingDataError, match=r"`avsb data propagate .* --flow ilk` makes them"):
        module.with_pseudo_masks(dataset, clips, "ilk")
    module.propagate(dataset, "ilk", jobs=1)
    more = module.with_pseudo_masks(dataset, clips, "ilk")
    audio = {clip.id: np.zeros((5, 128), np.float32) for clip in clips}
    (plain,), (batch,) = (
        load(ClipDataset(FileDecoder(given, S4, 224), audio), in_order(1, 1)) for given in (clips, more)
    )
    assert plain.annotated_frames().tolist() == [[True] + [False] * 4]
    assert batch.annotated_frames().all()
    assert np.array_equal(batch.ground_truth()[0, 0], plain.ground_truth()[0, 0])
    mask = more[0].masks[3]
    assert mask is not None
    first = batch.ground_truth()[0, 0]
    assert batch.ground_truth()[0, 3, :-9, :-9].equal(first[9:, 9:])  # three pixels a frame by the quick flow
    assert np.array_equal(batch.ground_truth()[0, 3], read_object_mask(mask))
    assert batch.ground_truth()[0, 1:].any(dim=(1, 2)).any()


def test_masks_of_another_source_are_imported(dataset: Dataset, tmp_path: Path) -> None:
    given = tmp_path / "aot"
    assert module.propagate(dataset, "ilk", out=given, jobs=1) > 0
    source, taken = module.import_masks(dataset, given, jobs=1)
    clips = dataset.clips("train")
    assert taken == 4 * len(clips)
    assert module.import_masks(dataset, given, jobs=1) == (source, 0)
    for clip in module.with_pseudo_masks(dataset, clips, source):
        for frame, path in module.missing_mask_paths(clips[0]).items():
            if clip.id == clips[0].id:
                assert np.array_equal(read_object_mask(clip.masks[frame]), read_object_mask(given / path))

    # Laid out as the official tree; other masks are another source.
    tree = tmp_path / "tree"
    shutil.copytree(given, tree / "s4_data" / "gt_masks")
    path = next(iter(module.missing_mask_paths(clips[0]).values()))
    changed = tree / "s4_data" / "gt_masks" / path
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
    assert module.import_masks(dataset, tree, jobs=1)[0] != source
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(changed)
    with pytest.raises(UsageError, match=f"{path.name}.* has the value 100"):
        module.import_masks(dataset, tree, jobs=1)
    changed.unlink()
    with pytest.raises(MissingDataError, match=f"no mask .*{path.name}"):
        module.import_masks(dataset, tree, jobs=1)
    with pytest.raises(MissingDataError, match="has no folder 'train'"):
        module.import_masks(dataset, tmp_path)


def test_sources_and_tasks_are_checked() -> None:
    module.check_supplement("masks-0123456789ab", S4)
    with pytest.raises(UsageError, match="Unknown source of pseudo-masks 'tvl'. Did you mean 'tvl1'"):
        module.check_supplement("tvl", S4)
    module.check_supplement("tvl1", MS3)
    with pytest.raises(UsageError, match="have no classes; leave it out for avss"):
        module.check_supplement("tvl1", AVSS)


def test_the_command(avsb, dataset: Dataset, tmp_path: Path) -> None:
    command = ("data", "propagate", dataset.root, "--jobs", "1")
    made = avsb(*command, "--flow", "ilk", "--out", tmp_path / "masks", "--json")
    assert made.json["made"] == 4 * made.json["clips"]
    taken = avsb(*command, "--from", tmp_path / "masks")
    assert taken.code == 0
    assert "--set supplement=masks-" in taken.out
    both = avsb(*command, "--flow", "ilk", "--from", tmp_path)
    assert (both.code, "pass one of them" in both.err) == (2, True)
    wrong = avsb(*command, "--flow", "tv1")
    assert (wrong.code, "Did you mean 'tvl1'" in wrong.err) == (2, True)
