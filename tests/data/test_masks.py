"""Masks in all image modes, and invalid masks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data.errors import MaskValueError, UnreadableImageError
from avsbench_harness.data.masks import (
    PALETTE,
    ZeroOneMaskWarning,
    colourise,
    read_object_mask,
    read_semantic_mask,
    resize_mask,
)
from avsbench_harness.errors import MissingDataError, UsageError

VOC_COLOURS = [  # of PASCAL VOC 2012, background first
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
    (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128),
    (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
]  # fmt: skip


def test_palette_is_that_of_voc():
    assert PALETTE.shape == (71, 3)
    assert [tuple(colour) for colour in PALETTE[:21].tolist()] == VOC_COLOURS
    assert tuple(PALETTE[70].tolist()) == (32, 128, 128)
    assert len(np.unique(PALETTE, axis=0)) == 71
    with pytest.raises(ValueError, match="read-only"):
        PALETTE[0] = 1


def paletted(indices, colours):
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    return image


def grey(mask):
    return Image.fromarray(mask * np.uint8(255))


def palette_file(labels):
    return paletted(labels, PALETTE)


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 0, 200)
OBJECT_ENCODINGS = {
    "L": grey,
    "1": lambda mask: Image.fromarray(mask.astype(bool)),
    "grey ramp P": lambda mask: grey(mask).convert("P"),
    "P, 1 is white": lambda mask: paletted(mask, [BLACK, WHITE]),
    "P, 0 is white": lambda mask: paletted(1 - mask, [WHITE, BLACK]),
    "P, 255 of another colour": lambda mask: paletted(mask * 255, [BLACK] * 255 + [RED]),
    "RGB": lambda mask: grey(mask).convert("RGB"),
    "RGBA": lambda mask: grey(mask).convert("RGBA"),
    "LA": lambda mask: grey(mask).convert("LA"),
    "16 bit": lambda mask: Image.fromarray(mask.astype(np.uint16) * 255),
}
ZERO_ONE_ENCODINGS = {
    "L": lambda mask: Image.fromarray(mask),
    "P, DAVIS": lambda mask: paletted(mask, [BLACK, RED]),
    "P, grey ramp": lambda mask: Image.fromarray(mask).convert("P"),
    "RGB": lambda mask: Image.fromarray(mask).convert("RGB"),
}


@pytest.fixture
def mask(rng):
    mask = (rng.random((20, 30)) < 0.3).astype(np.uint8)
    mask[0, :2] = (0, 1)
    return mask


@pytest.mark.parametrize("encoding", OBJECT_ENCODINGS)
@pytest.mark.parametrize("empty", [False, True])
def test_object_mask_in_every_mode(tmp_path, mask, encoding, empty):
    mask = mask * np.uint8(not empty)
    path = tmp_path / "mask.png"
    OBJECT_ENCODINGS[encoding](mask).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_object_mask(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask)


def with_alpha(colour, alpha, mode="RGBA"):
    """An image of one or varying grey values and a mask {0,1} as its alpha channel."""
    grey_values = np.broadcast_to(np.asarray(colour, np.uint8), alpha.shape)
    channels = [grey_values] * (3 if mode == "RGBA" else 1) + [alpha.astype(np.uint8) * np.uint8(255)]
    return Image.fromarray(np.stack(channels, axis=-1), mode)


def transparent_palette(mask, colours, alphas):
    image = paletted(mask, colours)
    image.info["transparency"] = bytes(alphas)
    return image


ALPHA_ENCODINGS = {
    "black RGBA": lambda m: with_alpha(0, m),
    "white RGBA": lambda m: with_alpha(255, m),
    "black LA": lambda m: with_alpha(0, m, "LA"),
    "white LA": lambda m: with_alpha(255, m, "LA"),
    "mask cut out": lambda m: with_alpha(m * np.uint8(255), m),
    "background in part transparent": lambda m: with_alpha(
        m * np.uint8(255), m | (np.indices(m.shape)[0] % 2)
    ),
    "palette": lambda m: transparent_palette(m, [BLACK, (255, 255, 255)], [0, 255]),
    "palette of one colour": lambda m: transparent_palette(m, [BLACK, BLACK], [0, 255]),
}


@pytest.mark.parametrize("encoding", ALPHA_ENCODINGS)
def test_object_mask_in_the_alpha_channel(tmp_path, mask, encoding):
    path = tmp_path / "mask.png"
    ALPHA_ENCODINGS[encoding](mask).save(path)
    np.testing.assert_array_equal(read_object_mask(path), mask)


@pytest.mark.parametrize(
    "image",
    [
        lambda m: with_alpha(m * np.uint8(255), 1 - m),  # transparent objects
        lambda m: with_alpha(m * np.uint8(255), m * 0),
        lambda m: with_alpha(255, m * 0, "LA"),
        lambda m: transparent_palette(m, [BLACK, (255, 255, 255)], [255, 0]),
        lambda m: transparent_palette(m, [BLACK, (255, 255, 255)], [255, 90]),
    ],
)
def test_object_mask_that_contradicts_its_alpha_channel_is_refused(tmp_path, mask, image):
    image(mask).save(tmp_path / "mask.png")
    with pytest.raises(
        MaskValueError, match=r"transparent pixels that contradict its colours; save the mask"
    ):
        read_object_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_semantic_mask_with_an_alpha_channel(tmp_path, mask, mode):
    path = tmp_path / "mask.png"
    labels = mask * np.uint8(28)
    channels = np.dstack([PALETTE[labels] if mode == "RGBA" else labels, mask * np.uint8(255)])
    Image.fromarray(channels, mode).save(path)
    np.testing.assert_array_equal(read_semantic_mask(path), labels)
    for image, message in (
        (with_alpha(0, mask, mode), "has transparency but no class"),
        (
            Image.fromarray(channels * np.array([1] * (channels.shape[2] - 1) + [0], np.uint8), mode),
            "contradict",
        ),
    ):
        image.save(path)
        with pytest.raises(MaskValueError, match=message):
            read_semantic_mask(path)


@pytest.mark.parametrize("encoding", ZERO_ONE_ENCODINGS)
def test_zero_one_object_masks_warn_once_per_data_set(tmp_path, mask, encoding):
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        ZERO_ONE_ENCODINGS[encoding](mask).save(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for path in paths:
            np.testing.assert_array_equal(read_object_mask(path), mask)
    assert [warning.category for warning in caught] == [ZeroOneMaskWarning]


def test_a_plain_mask_is_read_as_by_the_published_conversions(tmp_path, mask):
    path = tmp_path / "mask.png"
    grey(mask).save(path)
    read = read_object_mask(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read, np.asarray(image.convert("1")))  # AVS, AVSegFormer, CATR on S4
        np.testing.assert_array_equal(read, np.asarray(image.convert("P")) / 255)  # AVS, AVSegFormer on MS3
        np.testing.assert_array_equal(read, np.asarray(image) // 255)  # COMBO


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (lambda m: Image.fromarray(m * np.uint8(254)), r"value 254 \(\d+ px\), but .* only 0 and 255"),
        (lambda m: Image.fromarray(m * np.uint8(255) + (1 - m) * np.uint8(1)), r"value 1 \("),
        (lambda m: paletted(m * 2, [BLACK, RED, BLUE]), r"value 2 \("),
        (lambda m: grey(m).convert("RGB").point(lambda v: v // 2), r"value 127 \("),
        (
            lambda m: palette_file(m).convert("RGB"),
            r"colour \(128, 0, 0\) \(\d+ px\), but .* black and",
        ),
        (lambda m: Image.fromarray(m.astype(np.uint16) * 65535), r"value 65535 \("),
        (lambda m: Image.fromarray(m.astype(np.float32)), r"image mode F; a mask is an 8-bit PNG"),
    ],
)
def test_object_mask_with_other_values_is_refused(tmp_path, mask, image, message):
    path = tmp_path / "mask.tiff"  # holds every mode
    image(mask).save(path)
    with pytest.raises(MaskValueError, match=rf"mask\.tiff has the .*{message}"):
        read_object_mask(path)
    assert issubclass(MaskValueError, UsageError)


def test_refusal_counts_values_and_names_the_most_frequent_first(tmp_path):
    mask = np.zeros((10, 10), np.uint8)
    mask[0], mask[1, :4], mask[2, :2], mask[3, 0], mask[4, 0] = 255, 7, 100, 50, 60
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    with pytest.raises(MaskValueError, match=r"value 7 \(4 px\), 100 \(2 px\), 50 \(1 px\) and 1 more, but"):
        read_object_mask(path)


@pytest.fixture
def labels(rng):
    """All 71 classes."""
    labels = rng.integers(0, 71, (12, 40)).astype(np.uint8)
    labels.ravel()[:71] = np.arange(71)
    return labels


SHUFFLED = np.random.default_rng(5).permutation(71)
SEMANTIC_ENCODINGS = {
    "RGB": lambda labels: Image.fromarray(colourise(labels)),
    "RGBA": lambda labels: Image.fromarray(colourise(labels)).convert("RGBA"),
    "L": lambda labels: Image.fromarray(labels),
    "P": palette_file,
    "P, indices in another order": lambda labels: paletted(SHUFFLED.argsort()[labels], PALETTE[SHUFFLED]),
    "P, grey ramp": lambda labels: Image.fromarray(labels).convert("P"),
    "P, grey ramp cut short": lambda labels: paletted(labels, [(v, v, v) for v in range(71)]),
    "16 bit": lambda labels: Image.fromarray(labels.astype(np.uint16)),
}


@pytest.mark.parametrize("encoding", SEMANTIC_ENCODINGS)
def test_semantic_mask_in_every_mode(tmp_path, labels, encoding):
    path = tmp_path / "mask.png"
    SEMANTIC_ENCODINGS[encoding](labels).save(path)
    read = read_semantic_mask(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("encoding", [*SEMANTIC_ENCODINGS, "1"])
def test_empty_semantic_mask_in_every_mode(tmp_path, encoding):
    labels = np.zeros((4, 6), np.uint8)
    path = tmp_path / "mask.png"
    (Image.new("1", (6, 4)) if encoding == "1" else SEMANTIC_ENCODINGS[encoding](labels)).save(path)
    np.testing.assert_array_equal(read_semantic_mask(path), labels)


def test_a_semantic_mask_is_read_as_by_the_published_loader(tmp_path, labels):
    """AVS: one-hot by exact colour over the palette, then argmax."""
    path = tmp_path / "mask.png"
    palette_file(labels).save(path)
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGB"))
    onehot = np.stack([(rgb == colour).all(-1) for colour in PALETTE])
    np.testing.assert_array_equal(read_semantic_mask(path), onehot.argmax(0))
    np.testing.assert_array_equal(colourise(labels), rgb)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            lambda rgb, _: Image.fromarray(rgb),
            r"colour \(129, 0, 0\) \(2 px\), \(224, 224, 224\) \(1 px\), but",
        ),
        (
            lambda _, index: Image.fromarray(index),
            r"value 71 \(2 px\), 255 \(1 px\), but classes are 0 to 70",
        ),
        (
            lambda _, index: paletted(index, [(5, 5, 6)] * 72),
            r"colour \(5, 5, 6\) \(21 px\), .* and 1 more|colour",
        ),
        (lambda rgb, _: Image.new("1", (6, 4), 1), r"value 255 \(24 px\)"),
    ],
)
def test_semantic_mask_with_a_colour_of_no_class_is_refused(tmp_path, image, message):
    index = np.zeros((4, 6), np.uint8)
    index[0, :3] = (71, 71, 255)
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[0, :2], rgb[0, 2], rgb[1] = (129, 0, 0), (224, 224, 224), (128, 0, 0)
    path = tmp_path / "mask.png"
    image(rgb, index).save(path)
    with pytest.raises(MaskValueError, match=rf"mask\.png has the {message}"):
        read_semantic_mask(path)


def test_every_colour_off_the_palette_is_found(tmp_path, rng):
    """Neighbours of palette colours, and colours of VOC classes beyond 70."""
    known = {tuple(colour) for colour in PALETTE.tolist()}
    drawn = rng.integers(0, 256, (300, 3))
    near = PALETTE[rng.integers(0, 71, 300)].astype(int) + rng.integers(-1, 2, (300, 3))
    coarse = rng.integers(0, 8, (300, 3)) * 32
    path = tmp_path / "mask.png"
    for colour in map(tuple, np.concatenate([drawn, near.clip(0, 255), coarse]).tolist()):
        Image.new("RGB", (2, 2), colour).save(path)
        if colour in known:
            assert tuple(PALETTE[read_semantic_mask(path)[0, 0]].tolist()) == colour
        else:
            with pytest.raises(MaskValueError):
                read_semantic_mask(path)


@pytest.mark.parametrize("read", [read_object_mask, read_semantic_mask])
def test_missing_and_unreadable_masks_are_named(tmp_path, read):
    with pytest.raises(MissingDataError, match=r"no file .*none\.png"):
        read(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(
        UnreadableImageError, match=r"text\.png cannot be read as an image \(of no known format"
    ):
        read(tmp_path / "text.png")


@pytest.mark.parametrize("shape", [(224, 224), (360, 640), (100, 37), (224, 300)])
def test_resizing_is_that_of_pillows_nearest(rng, shape):
    mask = (rng.random(shape) < 0.5).astype(np.uint8)
    resized = grey(mask).convert("1").resize((224, 224))  # Pillow forces NEAREST on this mode
    np.testing.assert_array_equal(resize_mask(mask, 224), np.asarray(resized))
    labels = rng.integers(0, 71, shape).astype(np.uint8)
    resized = Image.fromarray(colourise(labels)).resize((224, 224), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(colourise(resize_mask(labels, 224)), np.asarray(resized))
