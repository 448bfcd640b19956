from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data import maskige
from avsbench_harness.data.layout import open_dataset
from avsbench_harness.data.loader import ClipDataset, in_order, load, normalise
from avsbench_harness.data.synth import write_synthetic
from avsbench_harness.errors import MissingDataError, UsageError
from avsbench_harness.tasks import AVSS, MS3, S4


def square(size: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[:side, :side] = True
    return mask


def test_small_masks_lie_on_top_and_have_small_numbers() -> None:
    index = maskige.paint(np.stack([square(8, 6), square(8, 2), square(8, 4)]))
    assert [index[0, 0], index[3, 3], index[5, 5], index[7, 7]] == [1, 2, 3, 0]


def test_numbers_wrap_after_255() -> None:
    masks = np.zeros((257, 1, 257), np.bool_)
    for rank in range(257):
        masks[rank, 0, rank] = True
    assert maskige.paint(masks)[0, [0, 254, 255, 256]].tolist() == [1, 255, 0, 1]


def test_no_mask_gives_the_grey_of_index_zero() -> None:
    assert maskige.paint(np.zeros((1, 2, 2), np.bool_)).tolist() == [[0, 0], [0, 0]]
    assert maskige.palette()[0].tolist() == [120, 120, 120]
    assert maskige.palette()[149].tolist() == [92, 0, 255]
    assert not maskige.palette()[150:].any()


def test_segments_cover_a_frame_once(real_s4: Path) -> None:
    frame = np.asarray(Image.open(open_dataset(real_s4, S4).clips("test")[0].frames[0]).convert("RGB"))
    masks = maskige.felzenszwalb(frame)
    assert len(masks) > 1
    assert (masks.sum(0) == 1).all()


def test_published_files_are_found_where_the_authors_keep_them(tmp_path: Path) -> None:
    expected = (
        (S4, "s4_data/pre_SAM_mask/{split}/{category}/{id}/{id}_1_mask_color.png"),
        (MS3, "ms3_data/pre_SAM_mask/{id}/{id}.mp4_1_mask_color.png"),
        (AVSS, "pre_SAM_mask/AVSBench_semantic/{subset}/{id}/frames/0_mask_color.png"),
    )
    for task, pattern in expected:
        root = tmp_path / task.name
        write_synthetic(root, task, (1, 0, 0), seed=1, jobs=1)
        dataset = open_dataset(root, task)
        (clip,) = dataset.clips("train")
        facts = {"split": "train", "category": clip.category, "id": clip.id, "subset": clip.subset}
        first = maskige.maskige_files(dataset, clip, "published")[0]
        assert first == dataset.folder / pattern.format(**facts)
    processed = first.parent.parent / "processed_frames" / first.name
    processed.parent.mkdir(parents=True)
    processed.touch()
    assert maskige.maskige_files(dataset, clip, "published")[0] == processed


def test_making_goes_on_where_it_stopped(
    real_s4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    dataset = open_dataset(real_s4, S4)
    clips = dataset.clips("test")
    assert maskige.missing_maskiges(dataset, clips, "felzenszwalb") == 15
    done = []
    assert maskige.make_maskiges(clips[:2], "felzenszwalb", jobs=2, progress=done.append) == 10
    assert done == [1, 1]
    assert maskige.make_maskiges(clips, "felzenszwalb", jobs=1) == 5
    assert maskige.make_maskiges(clips, "felzenszwalb", jobs=1) == 0
    path = maskige.maskige_files(dataset, clips[0], "felzenszwalb")[0]
    colours = {tuple(colour) for colour in maskige.read_maskige(path, 224).reshape(-1, 3)}
    assert len(colours) > 1
    assert colours <= {tuple(colour) for colour in maskige.palette()}
    assert {tuple(colour) for colour in maskige.read_maskige(path, 60).reshape(-1, 3)} <= colours


def test_the_loader_puts_them_into_batches(real_s4: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AVSB_CACHE_DIR", str(tmp_path))
    dataset = open_dataset(real_s4, S4)
    clips = dataset.clips("val")
    maskige.make_maskiges(clips, "felzenszwalb", jobs=1)
    files = {clip.id: maskige.maskige_files(dataset, clip, "felzenszwalb") for clip in clips}
    audio = {clip.id: np.zeros((5, 128), np.float32) for clip in clips}
    (batch,) = load(ClipDataset(clips, S4, audio, size=32, maskiges=files), in_order(2, 2))
    assert batch.maskige is not None
    assert batch.maskige.shape == batch.images.shape
    first = normalise(np.stack([maskige.read_maskige(files[clips[1].id][4], 32)]))[0]
    assert (batch.maskige[1, 4] == first).all()


def test_what_is_missing_or_unknown_is_named(real_s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(real_s4, root)
    dataset = open_dataset(root, S4)
    clip = dataset.clips("test")[0]
    with pytest.raises(UsageError, match="Unknown source of maskiges 'publishd'. Did you mean 'published'"):
        maskige.maskige_files(dataset, clip, "publishd")
    with pytest.raises(UsageError, match="Unknown segmenter 'sam'"):
        maskige.make_maskiges([clip], "sam")
    with pytest.raises(MissingDataError, match="`avsb data maskige` makes maskiges"):
        maskige.read_maskige(maskige.maskige_files(dataset, clip, "published")[0], 224)
    clip.frames[0].unlink()
    with pytest.raises(MissingDataError, match="`avsb data check`"):
        maskige.maskige_files(dataset, clip, "felzenszwalb")
