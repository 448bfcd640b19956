"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from avsbench_harness.engine.run import Run
from avsbench_harness.tracking.json_log import read_log


@pytest.mark.parametrize("stops", [(), (4,)])
def test_events_are_those_of_the_log(tracked: Callable[..., Run], stops: tuple[int, ...]) -> None:
    """A run that was interrupted after step 4 repeats the steps after its checkpoint of step 2."""
    run = tracked("tensorboard", *stops)
    assert len(list((run.folder / "tensorboard").iterdir())) == 1 + len(stops)
    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={IMAGES: 0}).Reload()
    lines = read_log(run.folder / "log.jsonl")
    steps = [line for line in lines if "loss" in line]
    for tag, name in (("loss", "loss"), ("bce", "bce"), ("lr", "lr"), ("gradient_norm", "gradient_norm")):
        found = events.Scalars(f"train/{tag}")
        assert [event.step for event in found] == [1, 2, 3, 4, 5]
        assert [event.value for event in found] == pytest.approx([line[name] for line in steps])
    times = [event.wall_time for event in events.Scalars("train/loss")]
    assert times == pytest.approx([line["measured"]["time"] for line in steps])
    validations = [line for line in lines if "val" in line]
    scores = events.Scalars("val/J")
    assert [(event.step, event.value) for event in scores] == [
        (line["step"], pytest.approx(line["val"]["J"])) for line in validations
    ]
    assert [event.step for event in scores] == [2, 4, 5]
    assert {"measured/clips_per_second", "measured/memory_gib"} <= set(events.Tags()["scalars"])


def test_images_show_the_same_clips_at_every_validation(tracked: Callable[..., Run]) -> None:
    run = tracked("tensorboard")
    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={IMAGES: 0}).Reload()
    clips = run.dataset.clips("val")
    assert events.Tags()["images"] == [f"val/{clip.id}" for clip in clips]
    for clip in clips:
        images = events.Images(f"val/{clip.id}")
        assert [image.step for image in images] == [2, 4, 5]
        with Image.open(io.BytesIO(images[0].encoded_image_string)) as opened:
            shown = np.asarray(opened)
        assert shown.shape == (112, 5 * 112, 3)
        with Image.open(clip.frames[0]) as opened:
            frame = np.asarray(opened.convert("RGB").resize((112, 112), Image.Resampling.BOX), float)
        # The frame, except for the outlines.
        assert np.median(np.abs(shown[:, :112] - frame)) < 6
