"""The clips of every step, against permutations that are chained and cut here."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from avsbench_harness.data.epochs import Epochs, Key, generator


def permutation(clips: int, seed: int, epoch: int) -> list[Key]:
    """The documented order of an epoch: the permutation of its generator."""
    return [(int(index), epoch) for index in generator(seed, epoch, "order").permutation(clips)]


def chunks(keys: list[Key], size: int) -> list[list[Key]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def expected(clips: int, size: int, partial: str, seed: int) -> list[list[Key]]:
    """The batches of six epochs."""
    orders = [permutation(clips, seed, epoch) for epoch in range(6)]
    if partial == "wrap":
        return [batch for batch in chunks(list(itertools.chain(*orders)), size) if len(batch) == size]
    batches = [batch for order in orders for batch in chunks(order, size)]
    return batches if partial == "keep" else [batch for batch in batches if len(batch) == size]


@pytest.mark.parametrize("partial", ["keep", "drop", "wrap"])
@pytest.mark.parametrize(("clips", "size"), [(10, 4), (8, 4), (5, 1), (3, 3)])
def test_batches_are_those_of_chained_permutations(clips: int, size: int, partial: Any) -> None:
    epochs = Epochs(clips, size, partial, seed=3)
    wanted = expected(clips, size, partial, seed=3)
    found = [epochs.batch(step) for step in range(len(wanted))]
    assert found == wanted
    seen = np.cumsum([0, *map(len, wanted)])
    assert [epochs.clips_before(step) for step in range(len(wanted) + 1)] == seen.tolist()
    assert [epochs.of(step) for step in range(len(wanted))] == [batch[0][1] for batch in wanted]


@pytest.mark.parametrize(
    ("partial", "starts"),
    [("keep", [0, 3, 6, 9, 12]), ("drop", [0, 2, 4, 6, 8]), ("wrap", [0, 3, 5, 8, 10])],
)
def test_starts_of_epochs(partial: Any, starts: list[int]) -> None:
    """Ten clips in batches of four; wrapped, 10 = 2.5 batches: steps 2 and 7 belong to two epochs."""
    epochs = Epochs(10, 4, partial)
    assert [epochs.start(epoch) for epoch in range(5)] == starts
    if partial == "wrap":
        assert {epoch for _, epoch in epochs.batch(2)} == {0, 1}
        assert epochs.of(2) == 0
        assert epochs.of(3) == 1


def test_fewer_clips_than_a_batch() -> None:
    assert len(Epochs(3, 8).batch(5)) == 3
    wrapped = Epochs(3, 8, "wrap")
    assert [epoch for _, epoch in wrapped.batch(0)] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [epoch for _, epoch in wrapped.batch(1)] == [2, 3, 3, 3, 4, 4, 4, 5]
    assert [wrapped.of(step) for step in range(4)] == [0, 2, 5, 8]


def test_an_epoch_is_determined_by_seed_and_epoch() -> None:
    orders = {
        tuple(index for index, _ in Epochs(10, 10, seed=seed).batch(epoch))
        for seed, epoch in ((1, 2), (1, 3), (2, 2))
    }
    assert len(orders) == 3
    assert Epochs(10, 10, seed=1).batch(2) == Epochs(10, 10, seed=1).batch(2)
