from __future__ import annotations

import math

import numpy as np
import pytest

from avsbench_harness.data.synth.draws import ATTENUATION, COS, SIN, TURN, Draws

WORD = (1 << 64) - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 from its paper (Salmon et al., SC 2011), in Python's integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        low, high = c0 * 0xD2E7470EE14C6C93, c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = (high >> 64) ^ c1 ^ k0, high & WORD, (low >> 64) ^ c3 ^ k1, low & WORD
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & WORD, (k1 + 0xBB67AE8584CAA73B) & WORD
    return [c0, c1, c2, c3]


def test_reference_is_philox() -> None:
    """The published test vector of Random123 for a zero counter and key."""
    assert philox([0] * 4, [0] * 2) == [
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B,
    ]  # fmt: skip


def test_the_stream_is_that_of_the_paper() -> None:
    """The draws are the paper's function of seed, name and index, independent of NumPy's version."""
    name_crc = 0x352441C2  # CRC-32 of "abc"
    block = philox([1, 0, 0, 0], [77, name_crc << 32 | 5])
    draws = Draws(77, "abc", 5)
    assert [draws.integer(0, 999) for _ in range(4)] == [(raw >> 11) * 1000 >> 53 for raw in block]


def test_noise_sums_the_four_words_of_each_number() -> None:
    raw = np.array(philox([1, 0, 0, 0], [1, 0x352441C2 << 32]), dtype="<u8")
    words = np.frombuffer(raw.tobytes(), dtype="<i2").reshape(4, 4).astype(int)
    assert Draws(1, "abc").noise(4).tolist() == words.sum(axis=1).tolist()


def test_noise_has_the_deviation_that_is_documented() -> None:
    noise = Draws(3, "noise").noise(200_000)
    assert abs(noise.mean()) < 400
    assert noise.std() == pytest.approx(37837, rel=0.01)


def test_integer_is_uniform_and_reaches_both_ends() -> None:
    draws = Draws(2, "dice")
    counts = np.bincount([draws.integer(1, 6) for _ in range(12_000)], minlength=7)
    assert counts[0] == 0
    chi_squared = ((counts[1:] - 2000) ** 2 / 2000).sum()
    assert chi_squared < 25.7  # 1 in 10,000 for five degrees of freedom


def test_sample_is_an_ordered_choice_without_repetition() -> None:
    draws = Draws(4, "sample")
    seen = {tuple(draws.sample(2, 3)) for _ in range(200)}
    assert seen == {(a, b) for a in range(3) for b in range(3) if a != b}


@pytest.mark.parametrize(
    ("first", "second"),
    [((1, "a", 0), (2, "a", 0)), ((1, "a", 0), (1, "b", 0)), ((1, "a", 0), (1, "a", 1))],
    ids=["seed", "name", "index"],
)
def test_streams_are_independent(first: tuple[int, str, int], second: tuple[int, str, int]) -> None:
    assert (Draws(*first).noise(8) != Draws(*second).noise(8)).any()


def test_sines_are_rounded_far_from_a_tie() -> None:
    """The last bit of the C library's sine cannot change an entry."""
    exact = [32767 * math.sin(2 * math.pi * a / TURN) for a in range(TURN)]
    assert max(abs(value - entry) for value, entry in zip(exact, SIN.tolist(), strict=True)) < 0.5 - 1e-6
    assert COS[0] == 32767
    assert COS[TURN // 4] == 0


def test_decibels_are_rounded_far_from_a_tie() -> None:
    exact = [4096 * 10 ** (-d / 20) for d in range(len(ATTENUATION))]
    assert np.abs(np.array(exact) - 4096 * ATTENUATION).max() < 0.5 - 1e-6
