"""Draws of negative audio: shares, candidates and reproducibility."""

from __future__ import annotations

import numpy as np
import pytest

from avsbench_harness.data.epochs import generator
from avsbench_harness.data.negatives import ClipKinds, Negatives
from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.augment import Augment, NegativeAudio

#: Clip: kinds that sound, kinds that are visible, frames.
CLIPS = {
    "a": ({"dog"}, {"dog", "cat"}, 5),
    "b": ({"cat"}, {"cat", "bird"}, 5),
    "c": ({"bird"}, {"bird"}, 5),
    "d": ({"bird"}, {"bird", "dog"}, 10),
    "e": (set(), {"cow"}, 5),
    "f": ({"cow"}, {"cow"}, 5),
}
KINDS = [ClipKinds(name, frozenset(one), frozenset(two), n) for name, (one, two, n) in CLIPS.items()]


def sounds(start: int) -> dict[str, np.ndarray]:
    return {name: np.float32([start + index]) for index, name in enumerate(CLIPS)}


def make(**shares: float) -> Negatives:
    return Negatives(NegativeAudio(**shares), sounds(100), [sounds(200), sounds(300)], sounds(0), KINDS)


def test_swapped_recordings_have_no_kind_that_is_visible() -> None:
    found = {name: make(swapped=1.0).others(name) for name in CLIPS}
    assert found == {
        "a": ["c", "f"],  # the cat is visible, though silent
        "b": ["a", "f"],
        "c": ["a", "b", "f"],
        "d": [],  # no other clip of its length
        "e": ["a", "b", "c"],
        "f": ["a", "b", "c"],
    }


def test_draws_have_the_shares_and_depend_on_seed_epoch_and_clip() -> None:
    negatives = make(silence=0.1, noise=0.3, swapped=0.2)
    drawn = [negatives.draw("c", generator(0, epoch, "c")) for epoch in range(4000)]
    values = np.array([-1 if one is None else float(one[0]) for one in drawn])
    assert np.mean(values == 102) == pytest.approx(0.1, abs=0.03)
    assert np.mean((values >= 200) & (values < 300)) == pytest.approx(0.15, abs=0.03)
    assert np.mean(values >= 300) == pytest.approx(0.15, abs=0.03)
    assert np.mean((values >= 0) & (values < 100)) == pytest.approx(0.2, abs=0.03)
    assert set(values[values >= 200] % 100) == {0, 1, 2, 4, 5}  # not of d, which has ten frames
    assert set(values[(values >= 0) & (values < 100)]) == {0, 1, 5}
    again = [negatives.draw("c", generator(0, epoch, "c")) for epoch in range(100)]
    assert all(
        one is two or (one is not None and one == two) for one, two in zip(again, drawn[:100], strict=True)
    )


def test_a_clip_without_candidates_keeps_its_own_recording() -> None:
    assert make(swapped=1.0).draw("d", generator(0, 0, "d")) is None


@pytest.mark.parametrize("shares", [{"silence": 0.6, "noise": 0.5}, {}, {"swapped": -0.1}])
def test_impossible_shares_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Augment.parse({"negative_audio": shares}, "the test")


def test_recipes_without_the_option_are_written_as_before() -> None:
    assert "negative_audio" not in Augment().model_dump(mode="json")
    given = Augment.parse({"negative_audio": {"silence": 0.25}}, "the test")
    assert given.model_dump(mode="json")["negative_audio"] == {"silence": 0.25, "noise": 0.0, "swapped": 0.0}
