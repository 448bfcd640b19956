from __future__ import annotations

import math

import pytest
import torch

from avsbench_harness.nn.positions import sine_positions


def test_encodings_are_sines_and_cosines_of_rows_then_columns_from_one() -> None:
    codes = sine_positions(3, 5, 8)
    assert codes.shape == (3, 5, 8)
    row, column = 2, 4
    expected = [
        f(position / 10000 ** (2 * i / 4))
        for position in (row + 1, column + 1)
        for i in (0, 1)
        for f in (math.sin, math.cos)
    ]
    torch.testing.assert_close(codes[row, column], torch.tensor(expected))


def test_normalised_encodings_end_at_the_scale_for_every_size() -> None:
    small, large = (sine_positions(side, side, 16, normalize=True)[-1, -1] for side in (3, 50))
    torch.testing.assert_close(small, large, rtol=0, atol=1e-4)
    fine = sine_positions(4, 4, 4, normalize=True, scale=math.pi, dtype=torch.float64)
    assert fine[1, 0, 0] == pytest.approx(math.sin(math.pi / 2), abs=1e-6)


def test_temperature_sets_the_longest_wavelength() -> None:
    codes = sine_positions(1, 1, 8, temperature=100.0)
    assert float(codes[0, 0, 2]) == pytest.approx(math.sin(1 / 10))


def test_types_and_invalid_sizes() -> None:
    assert sine_positions(2, 2, 4, dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions(2, 2, 6)
