from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from avsbench_harness.data.synth import scene as scenes
from avsbench_harness.data.synth.scene import Scene, Style
from avsbench_harness.data.synth.sounds import RATE
from avsbench_harness.data.synth.write import AVSS_STYLES, MS3_STYLE, S4_STYLE

LONG = AVSS_STYLES["v2"]
SEED = 20


@cache
def planned(style: Style, count: int) -> list[Scene]:
    return [Scene(style, "train", index, SEED, 23) for index in range(count)]


def test_s4_has_one_sounding_object_and_silent_ones() -> None:
    for scene in planned(S4_STYLE, 50):
        assert len(scene.kinds) in (2, 3)
        assert len(set(scene.kinds)) == len(scene.kinds)
        assert len(scene.sounding) == 1


def test_sets_of_ms3_change_within_a_clip() -> None:
    sizes = set()
    for scene in planned(MS3_STYLE, 50):
        assert 2 <= len(scene.kinds) <= 4
        sets = {tuple(row) for row in scene.sound.active.tolist() if any(row)}
        assert len(sets) >= 2
        sizes |= {sum(row) for row in sets}
    assert sizes == {1, 2, 3}


@pytest.mark.parametrize("style", [S4_STYLE, MS3_STYLE, LONG], ids=lambda style: style.name)
def test_about_one_second_in_eleven_is_silent(style: Style) -> None:
    silent = [~scene.sound.active.any(axis=1) for scene in planned(style, 40)]
    share = float(np.mean(silent))
    print(f"seed {SEED}: {share:.3f} of the seconds are silent")
    assert 0.04 < share < 0.15
    # Everything in silence would be a clip of no class.
    assert not any(seconds.all() for seconds in silent)


@pytest.mark.parametrize("style", [S4_STYLE, LONG], ids=lambda style: style.name)
def test_every_object_is_visible_in_every_frame(style: Style) -> None:
    for scene in planned(style, 20):
        for frame in scene.picture.owners:
            pixels = np.bincount(frame.ravel(), minlength=len(scene.kinds) + 1)[1:]
            assert pixels.min() >= 40  # of the smallest shapes: a thin crescent, half hidden


def test_objects_move_and_overlap() -> None:
    still = overlapping = 0
    for scene in planned(S4_STYLE, 50):
        owners = scene.picture.owners
        still += bool((owners[0] == owners[-1]).all())
        sizes = np.array([[(frame == i + 1).sum() for i in range(len(scene.kinds))] for frame in owners])
        overlapping += bool((sizes.min(axis=0) < 0.8 * sizes.max(axis=0)).any())
    assert still == 0
    assert overlapping > 10


def test_classes_are_the_visible_pixels_of_sounding_objects() -> None:
    for scene in planned(MS3_STYLE, 10):
        classes, owners = scene.classes(), scene.picture.owners
        for t in range(MS3_STYLE.seconds):
            for i, kind in enumerate(scene.kinds):
                expected = kind.index + 1 if scene.sound.active[t, i] else 0
                assert (classes[t][owners[t] == i + 1] == expected).all()
            assert (classes[t][owners[t] == 0] == 0).all()


def test_objects_stand_out_from_the_background() -> None:
    """The rim of an object is a third as bright as its inside, which is coloured."""
    for scene in planned(S4_STYLE, 4):
        saturation = np.ptp(scene.picture.frames.astype(int), axis=-1)
        owners = scene.picture.owners
        assert saturation[owners > 0].mean() > saturation[owners == 0].mean() + 30


def test_the_picture_does_not_depend_on_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picture, to the bit, whichever of its objects sounds."""
    original = Scene(S4_STYLE, "train", 3, SEED, 23)
    sounding = int(original.sound.active.any(axis=0).argmax())

    def other(style: Style, objects: int, _: object) -> scenes.Flags:
        active = np.zeros((style.seconds, objects), dtype=np.bool_)
        active[:, (sounding + 1) % objects] = True
        return active

    monkeypatch.setattr(scenes, "_schedule", other)
    changed = Scene(S4_STYLE, "train", 3, SEED, 23)
    np.testing.assert_array_equal(changed.picture.frames, original.picture.frames)
    assert changed.sounding != original.sounding
    assert (changed.classes() != original.classes()).any()
    assert (changed.sound.samples != original.sound.samples).any()


def pixels(scene: Scene, i: int) -> float:
    return float((scene.picture.owners == i + 1).sum())


FEATURES: dict[str, Callable[[Scene, int], float]] = {
    "visible size": pixels,
    "place in the stack": lambda scene, i: i,
    "number of the kind": lambda scene, i: scene.kinds[i].index,
    "height": lambda scene, i: scene.picture.tracks[i].y[0],
    "distance from the left": lambda scene, i: scene.picture.tracks[i].x[0],
    "distance from the centre": lambda scene, i: float(
        np.hypot(scene.picture.tracks[i].x[2] - 1792, scene.picture.tracks[i].y[2] - 1792)
    ),
    "speed": lambda scene, i: float(
        np.hypot(np.diff(scene.picture.tracks[i].x[:2])[0], np.diff(scene.picture.tracks[i].y[:2])[0])
    ),
    "brightness": lambda scene, i: float(scene.picture.objects[i].colours[0].sum()),
    "growth": lambda scene, i: scene.picture.tracks[i].radius[-1] / scene.picture.tracks[i].radius[0],
}


@pytest.mark.parametrize("feature", FEATURES)
def test_the_picture_does_not_reveal_the_sounding_object(feature: str) -> None:
    """Selecting the object with the largest value of a visible feature has chance accuracy."""
    hits = expected = variance = 0.0
    for scene in planned(S4_STYLE, 200):
        values = [FEATURES[feature](scene, i) for i in range(len(scene.kinds))]
        hits += bool(scene.sound.active[:, int(np.argmax(values))].any())
        chance = 1 / len(values)
        expected, variance = expected + chance, variance + chance * (1 - chance)
    z = (hits - expected) / variance**0.5
    print(f"seed {SEED}: {feature}: {hits:.0f} right of 200, {expected:.1f} by chance, z = {z:+.2f}")
    assert abs(z) < 3.3  # 1 in 1,000


def test_silent_seconds_have_only_noise() -> None:
    compared = 0
    for scene in planned(S4_STYLE, 12):
        mono = scene.sound.samples.mean(axis=1).reshape(S4_STYLE.seconds, RATE)
        loudness = np.sqrt((mono**2).mean(axis=1))
        silent = ~scene.sound.active.any(axis=1)
        if silent.any():
            compared += 1
            assert loudness[silent].max() < loudness[~silent].min() / 2.5
            assert loudness[silent].min() > 0  # a recording has noise
    assert compared >= 3


def test_recordings_differ_in_level_and_noise() -> None:
    levels = [float(scene.sound.samples.std()) for scene in planned(S4_STYLE, 12)]
    assert max(levels) > 2 * min(levels)
    for scene in planned(S4_STYLE, 12):
        assert np.abs(scene.sound.samples.astype(int)).max() > 500
        assert (np.abs(scene.sound.samples.astype(int)) >= 32767).mean() < 0.001  # hardly ever clipped


def test_stereo_channels_are_not_copies() -> None:
    left, right = planned(S4_STYLE, 1)[0].sound.samples.T
    assert (left != right).any()
