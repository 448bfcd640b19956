"""Frames and masks of clips: geometry as published, errors of damaged files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from avsbench_harness.data import pixels
from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.errors import UnreadableImageError
from avsbench_harness.data.images import read_clip_masks, read_frame
from avsbench_harness.data.masks import resize_mask
from avsbench_harness.data.pixels import crop_box, crop_size, load_image
from avsbench_harness.errors import MissingDataError
from avsbench_harness.tasks import AVSS, MS3, S4


def test_crop_geometry_is_the_published_one(rng):
    sizes = rng.integers(1, 2000, (3000, 2)).tolist() + [
        [w, h] for w in (223, 224, 225, 640) for h in (224, 360)
    ]
    for width, height in sizes:
        if width > height:  # in floating point, as the published loaders compute
            wide = int(1.0 * width * 224 / height), 224
        else:
            wide = 224, int(1.0 * height * 224 / width)
        assert crop_size(width, height, 224) == wide
        left, upper = int(round((wide[0] - 224) / 2.0)), int(round((wide[1] - 224) / 2.0))  # noqa: RUF046
        assert crop_box(*wide, 224) == (left, upper, left + 224, upper + 224)


@pytest.mark.parametrize(
    ("width", "left"), [(224, 0), (225, 0), (226, 1), (227, 2), (229, 2), (231, 4), (398, 87)]
)
def test_half_pixels_are_rounded_to_even(width, left):
    assert crop_box(width, 224, 224) == (left, 0, left + 224, 224)


def picture(rng, width, height, mode="RGB"):
    return Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_frame_of_any_mode_is_rgb_at_the_wanted_size(tmp_path, rng, mode):
    path = tmp_path / "frame.tiff"
    image = picture(rng, 60, 40, mode)
    image.save(path)
    frame = read_frame(path, 32)
    assert (frame.shape, frame.dtype) == ((32, 32, 3), np.uint8)
    expected = image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(frame, np.asarray(expected))


def test_a_frame_of_the_stored_size_is_unchanged(tmp_path, rng):
    image = picture(rng, 224, 224)
    image.save(tmp_path / "frame.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "frame.png", 224), np.asarray(image))
    np.testing.assert_array_equal(read_frame(tmp_path / "frame.png", 224, "crop"), np.asarray(image))


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (225, 224), (100, 100), (31, 77)])
def test_frame_and_mask_are_cropped_equally(tmp_path, size):
    """A mask covers the same object before and after cropping."""
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : -width // 3] = 1
    Image.fromarray(mask * 255).convert("RGB").save(tmp_path / "frame.png")
    frame, cropped = read_frame(tmp_path / "frame.png", 224, "crop"), resize_mask(mask, 224, "crop")
    assert frame.shape == (224, 224, 3)
    assert cropped.shape == (224, 224)
    assert cropped.any()
    # Bilinear and nearest may differ by a pixel along the border only.
    away = (frame[..., 0] > 127) != cropped
    assert away.mean() < 0.02


def test_clip_masks_of_s4(tree):
    tree.s4()
    dataset = open_dataset(tree.root, S4)
    masks, annotated = read_clip_masks(dataset.clips("train")[0], S4)
    assert (masks.shape, masks.dtype, annotated.dtype) == ((5, 224, 224), np.uint8, np.bool_)
    assert annotated.tolist() == [True, False, False, False, False]
    expected = np.zeros((224, 224), np.uint8)
    expected[50:100, 60:90] = 1
    np.testing.assert_array_equal(masks[0], expected)
    assert not masks[1:].any()
    assert read_clip_masks(dataset.clips("test")[0], S4)[1].all()


def test_clip_masks_at_another_size(tree):
    tree.ms3()
    masks, annotated = read_clip_masks(open_dataset(tree.root, MS3).clips("val")[0], MS3, 112)
    assert masks.shape == (5, 112, 112)
    assert masks[4].sum() == 25 * 15
    assert annotated.all()


@pytest.mark.parametrize("fit", ["squeeze", "crop"])
@pytest.mark.parametrize("labels", ["labels_rgb", "labels_semantic"])
def test_clip_masks_of_avss(tree, labels, fit):
    tree.avss(labels=labels)
    dataset = open_dataset(tree.root, AVSS)
    single, _, new = dataset.clips("train")
    masks, annotated = read_clip_masks(new, AVSS, 64, fit)
    assert masks.shape == (10, 64, 64)
    assert annotated.all()
    assert np.unique(masks).tolist() == [0, 28]
    # Columns 7 to 29 of 48x32 pixels; the scale is 4/3 squeezed, 2 cropped (and 16 columns go either side).
    columns = masks[0].any(axis=0).nonzero()[0]
    assert (columns[0], columns[-1]) == ((9, 39) if fit == "squeeze" else (0, 43))
    assert read_clip_masks(single, AVSS)[1].tolist() == [True, False, False, False, False]


def test_missing_frame_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"no file .*frame\.png"):
        read_frame(tmp_path / "frame.png", 224)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingDataError, match=r"no file"):
        read_frame(tmp_path / "file" / "frame.png", 224)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damaged_images_are_named_and_never_crash(tmp_path, rng, suffix):
    path = tmp_path / f"frame.{suffix}"
    picture(rng, 40, 30).save(path)
    whole = path.read_bytes()
    errors = []
    for _ in range(300):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 200), rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_image(path)
        except UnreadableImageError as error:  # any other error fails the test
            errors.append(error)
    assert len(errors) > 30
    assert all(str(error).startswith(f"{path} cannot be read as an image (") for error in errors)
    assert not any(str(path) in error.reason for error in errors)

    for length in (0, 1, 8, 20, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableImageError, match=rf"frame\.{suffix} cannot be read as an image"):
            read_frame(path, 32)


def test_folder_in_place_of_an_image(tmp_path):
    (tmp_path / "frame.png").mkdir()
    with pytest.raises(UnreadableImageError, match=r"frame\.png cannot be read"):
        load_image(tmp_path / "frame.png")


def outcome(path: Path, monkeypatch: pytest.MonkeyPatch, *, fast: bool) -> object:
    """Read a file with or without the fast decoder: mode and pixels, or the error."""
    with monkeypatch.context() as patch:
        if not fast:
            patch.setattr(pixels, "_fast_decoder", lambda: None)
        try:
            image = load_image(path)
        except UnreadableImageError as error:
            return str(error)
        return image.mode, np.asarray(image).tolist()


@pytest.fixture
def fast_decoder() -> None:
    pytest.importorskip("imagecodecs", reason="the extra `fast` is not installed")


def png(array: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    content, image = io.BytesIO(), Image.fromarray(array)
    (image.convert(mode) if mode else image).save(content, "png", **options)
    return content.getvalue()


DRAW = np.random.default_rng(0)
GAMMA = PngImagePlugin.PngInfo()
GAMMA.add(b"gAMA", (20_000).to_bytes(4, "big"))
COLOURS = DRAW.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREYS = COLOURS[..., 0]
PICTURES = {
    "colours": png(COLOURS),
    "greys": png(GREYS),
    "stored": png(COLOURS, compress_level=0),
    "transparent colour": png(COLOURS, transparency=(1, 2, 3)),
    "transparent grey": png(GREYS, transparency=7),
    "alpha": png(np.dstack([COLOURS, GREYS])),
    "grey and alpha": png(np.dstack([GREYS, GREYS])),
    "bits": png(GREYS > 127),
    "deep": png(GREYS.astype(np.uint16) * 257),
    "gamma": png(COLOURS, pnginfo=GAMMA, icc_profile=b"no profile"),
    "palette": png(GREYS, "P"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_fast_decoder_gives_pillows_pixels(name: str, fast_decoder, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(PICTURES[name])
    found = outcome(path, monkeypatch, fast=True)
    assert isinstance(found, tuple)
    assert found == outcome(path, monkeypatch, fast=False)
    quick = pixels.load_plain(path) is not None
    assert quick == (name in ("colours", "greys", "stored", "gamma"))


@pytest.mark.parametrize("fit", ["squeeze", "crop"])
@pytest.mark.parametrize("size", [224, 32, 300])
def test_frames_are_the_same_with_the_fast_decoder(
    fit: str, size: int, fast_decoder, tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "frame.png"
    Image.fromarray(DRAW.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(path)
    found = read_frame(path, size, fit)
    monkeypatch.setattr(pixels, "_fast_decoder", lambda: None)
    np.testing.assert_array_equal(found, read_frame(path, size, fit))


@pytest.mark.parametrize("name", ["colours", "greys"])
def test_damaged_files_give_the_same_with_the_fast_decoder(
    name: str, fast_decoder, tmp_path: Path, monkeypatch
) -> None:
    """A changed byte or a truncated file: Pillow's error or pixels, or those of the undamaged file."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    path = tmp_path / "picture.png"
    path.write_bytes(PICTURES[name])
    good = outcome(path, monkeypatch, fast=False)
    for trial in range(300):
        content = bytearray(PICTURES[name])
        place = int(draw.integers(len(content)))
        if trial % 3 == 0:
            content = content[:place]
        else:
            content[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(content)
        found = outcome(path, monkeypatch, fast=True)
        assert found in (good, outcome(path, monkeypatch, fast=False)), (trial, place)
