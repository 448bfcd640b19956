"""Segmentation of videos, end to end."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.data.avsbench.layout import open_dataset
from avsbench_harness.data.masks import read_object_mask
from avsbench_harness.engine.predict import predict
from avsbench_harness.engine.predictor import Predictor
from avsbench_harness.errors import Interrupted, UsageError
from avsbench_harness.launch import segment as module
from avsbench_harness.launch.load_model import load
from avsbench_harness.launch.segment import SegmentOptions, output_files, segment
from avsbench_harness.submission import read_submission
from avsbench_harness.tasks import S4
from avsbench_harness.testing.videos import LOSSLESS, pattern, tone, write_test_video
from avsbench_harness.video.frames import read_frames
from avsbench_harness.video.probe import probe


@pytest.fixture
def predictor(untrained: Callable[[str], Path], tiny: str) -> Callable[[str], Predictor]:
    return lambda task: load(untrained(task), method=tiny, device="cpu")


def test_masks_are_those_of_predict_on_the_same_frames(predictor, tmp_path: Path) -> None:
    """A video of 5 s, and its frames and sound written as a clip of AVSBench, give the same masks."""
    rate = 22_050
    rng = np.random.default_rng(0)
    stereo = np.stack([tone(5, rate), rng.integers(-3000, 3000, 5 * rate).astype(np.int16)])
    video = write_test_video(
        tmp_path / "v.mkv", seconds=5, size=(224, 224), rate=4, codecs=LOSSLESS, sound=stereo, sound_rate=rate
    )
    data = tmp_path / "data" / "Single-source"
    frames, clip = data / "s4_data" / "visual_frames" / "test" / "video" / "v", "v"
    frames.mkdir(parents=True)
    for second in range(5):
        Image.fromarray(pattern((224, 224))(4 * second + 2)).save(frames / f"{clip}_{second + 1}.png")
    sound = data / "s4_data" / "audio_wav" / "test" / "video" / "v.wav"
    sound.parent.mkdir(parents=True)
    with wave.open(str(sound), "wb") as file:
        file.setparams((2, 2, rate, 0, "NONE", ""))
        file.writeframes(stereo.T.tobytes())
    (data / "s4_meta_data.csv").write_text("name,start,category,split\nv,0,video,test\n")

    found = predictor("s4")
    run = replace(found.run, dataset=open_dataset(tmp_path / "data", S4), out=tmp_path / "out")
    run.folder.mkdir(parents=True)
    (run.folder / "weights.safetensors").write_bytes((found.run.folder / "weights.safetensors").read_bytes())
    with read_submission(predict(run, "test")) as submission:
        expected = submission.read("v") >= 128  # the codes of probabilities above one half
    assert 0.05 < expected.mean() < 0.95

    segment(found, video, tmp_path / "o.mp4", SegmentOptions(masks=tmp_path / "masks", overlay=False))
    place = tmp_path / "masks" / "Single-source" / "s4_data" / "gt_masks" / "test" / "video" / "v_0_5000"
    for second in range(5):
        mask = read_object_mask(place / f"v_0_5000_{second + 1}.png")
        assert np.array_equal(mask, expected[second])


@pytest.mark.parametrize(("task", "fps"), [("s4", 1), ("s4", 3), ("avss", 1)])
def test_the_overlay_differs_from_the_video_exactly_in_the_masks(
    predictor, tmp_path: Path, task: str, fps: int
) -> None:
    video = write_test_video(tmp_path / "v.mkv", seconds=2.4, size=(96, 64), codecs=LOSSLESS)
    output = tmp_path / "o.mkv"
    found = predictor(task)
    result = segment(found, video, output, SegmentOptions(fps=fps, crf=0))
    masks = {one.index: one for one in found.predict_video(video, fps=fps)}
    assert sorted(masks) == list(range(len(result.predictions)))
    originals, drawn = list(read_frames(probe(video))), list(read_frames(probe(output)))
    assert len(originals) == len(drawn) == 24
    compared = 0
    for before, after in zip(originals, drawn, strict=True):
        assert abs(before.time - after.time) < 0.002
        shown = [one for one in masks.values() if one.shown[0] <= float(before.time) + 1e-9 < one.shown[1]]
        (mask,) = [one.mask > 0 for one in shown]
        changed = (after.pixels()[:64] != before.pixels()).any(axis=2)
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.98  # a colour may equal its tint
        compared += mask.any() and not mask.all()
    assert compared > 10 or task == "avss"


def test_labels_over_time(predictor, tmp_path: Path) -> None:
    video = write_test_video(tmp_path / "v.mkv", seconds=12, rate=2, codecs=LOSSLESS)
    result = segment(predictor("avss"), video, tmp_path / "o.mp4", SegmentOptions(overlay=False))
    assert (result.windows, result.padded) == (2, 1)
    assert [one.padded for one in result.predictions] == [False] * 10 + [True] * 2
    assert [one.start for one in result.predictions] == list(range(12))
    first = result.predictions[0]
    assert sum(one.area for one in first.objects) <= 1
    assert all(one.label > 0 and one.colour.startswith("#") for one in first.objects)
    json.dumps(result.to_json())


def test_an_interrupted_segmentation_resumes_at_the_next_window(
    predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_test_video(tmp_path / "v.mkv", seconds=16, rate=2, codecs=LOSSLESS)
    found, calls = predictor("s4"), []
    options = SegmentOptions(masks=tmp_path / "masks", overlay=False)
    original = Predictor.predict_clip

    def counted(self: Predictor, *arguments: object, **named: object):
        calls.append(named["where"])
        return original(self, *arguments, **named)

    def stop(request: object) -> None:
        if len(calls) == 2:
            raise Interrupted("Stopped.", 130)

    monkeypatch.setattr(Predictor, "predict_clip", counted)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_check", stop)
        with pytest.raises(Interrupted):
            segment(found, video, tmp_path / "o.mp4", options)
    resumed = segment(found, video, tmp_path / "o.mp4", options)
    assert [text.rsplit(" at ")[1] for text in calls] == ["0 s", "5 s", "10 s", "15 s"]
    coco = (tmp_path / "masks" / "v.coco.json").read_text()
    again = segment(found, video, tmp_path / "o.mp4", options)
    assert again == resumed
    assert (tmp_path / "masks" / "v.coco.json").read_text() == coco
    assert not (tmp_path / "o.mp4.masks").exists()


def test_other_options_do_not_reuse_masks(predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_test_video(tmp_path / "v.mkv", codecs=LOSSLESS)
    found = predictor("s4")

    def fail(*arguments: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_overlay", fail)
        with pytest.raises(RuntimeError):
            segment(found, video, tmp_path / "o.mp4", SegmentOptions(threshold=0.01))
    assert list((tmp_path / "o.mp4.masks").glob("*.png"))
    result = segment(found, video, tmp_path / "o.mp4", SegmentOptions(threshold=0.99))
    other = segment(found, video, tmp_path / "p.mp4", SegmentOptions(threshold=0.01))
    areas = [sum(o.area for frame in one.predictions for o in frame.objects) for one in (result, other)]
    assert areas[0] < areas[1]


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("silent.mp4", {"silent": True}, (64, 48)),
        ("vertical.mp4", {"size": (48, 96)}, (48, 96)),
        ("phone.mp4", {"rotation": -90}, (48, 64)),
        ("variable.mkv", {"times": [0.0, 0.1, 0.15, 0.7, 1.9]}, (64, 48)),
        ("odd.mkv", {"size": (63, 47), "codecs": LOSSLESS}, (64, 48)),
        ("one.mp4", {"seconds": 1}, (64, 48)),
        ("short.mp4", {"seconds": 0.1}, (64, 48)),
        ("stream.ts", {}, (64, 48)),
        ("old.avi", {"codecs": ("mpeg4", "yuv420p", "mp3")}, (64, 48)),
    ],
)
def test_unusual_videos(
    predictor, tmp_path: Path, name: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    video = write_test_video(tmp_path / name, **options)  # type: ignore[arg-type]
    result = segment(predictor("s4"), video, tmp_path / "o.mp4", SegmentOptions(fps=2))
    overlay, original = probe(tmp_path / "o.mp4"), probe(video)
    assert (overlay.width, overlay.height - 40) == size or name == "odd.mkv"
    assert len(list(read_frames(overlay))) == len(list(read_frames(original)))
    assert (overlay.sound_rate is None) == (name == "silent.mp4")
    assert any("has no sound" in note for note in result.notes) == (name == "silent.mp4")


def test_a_damaged_video_is_segmented_with_a_note(predictor, tmp_path: Path) -> None:
    whole = write_test_video(tmp_path / "whole.mp4", seconds=6)
    content = bytearray(whole.read_bytes())
    middle, length = len(content) // 2, len(content) // 10
    content[middle : middle + length] = np.random.default_rng(0).bytes(length)
    (tmp_path / "damaged.mp4").write_bytes(content)
    result = segment(predictor("s4"), tmp_path / "damaged.mp4", tmp_path / "o.mp4", SegmentOptions())
    assert len(result.predictions) == 6
    assert any("is damaged in" in note for note in result.notes)
    assert probe(tmp_path / "o.mp4").seconds == pytest.approx(6, abs=0.2)


@pytest.mark.slow
def test_4k(predictor, tmp_path: Path) -> None:
    video = write_test_video(tmp_path / "v.mp4", seconds=1, rate=2, size=(3840, 2160))
    segment(predictor("avss"), video, tmp_path / "o.mp4", SegmentOptions())
    assert (probe(tmp_path / "o.mp4").width, probe(tmp_path / "o.mp4").height) == (3840, 2280)


def test_refused_options(predictor, tmp_path: Path) -> None:
    video = write_test_video(tmp_path / "v.mp4")
    with pytest.raises(UsageError, match="would overwrite"):
        segment(predictor("s4"), video, video, SegmentOptions())
    with pytest.raises(UsageError, match="--threshold has no effect on avss"):
        segment(predictor("avss"), video, tmp_path / "o.mp4", SegmentOptions(threshold=0.5))
    with pytest.raises(UsageError, match="--threshold must be 0 or more and less than 1"):
        segment(predictor("s4"), video, tmp_path / "o.mp4", SegmentOptions(threshold=1.0))


def test_names_of_outputs(tmp_path: Path) -> None:
    one, two = Path("x/a.mp4"), Path("x/a.mkv")
    assert output_files([one], None) == {one: Path("a-segmented.mp4")}
    assert output_files([one], tmp_path / "b.webm") == {one: tmp_path / "b.webm"}
    assert output_files([one, two], tmp_path) == {
        one: tmp_path / "a.mp4-segmented.mp4",
        two: tmp_path / "a.mkv-segmented.mp4",
    }
    with pytest.raises(UsageError, match="is one file for 2 videos"):
        output_files([one, two], tmp_path / "b.mp4")
    with pytest.raises(UsageError, match="have the same name"):
        output_files([one, Path("y/a.mp4")], None)
