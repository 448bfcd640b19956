"""Audio tokens in the plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbench_harness.analysis.token_plots import draw_tokens, pca, place_tokens
from avsbench_harness.analysis.tokens import ClipTokens
from avsbench_harness.errors import UsageError

SEED = 7


def clips(count: int = 6) -> list[ClipTokens]:
    draw = np.random.default_rng(SEED)
    kinds = [("man",), ("guitar",), ("guitar", "man")]
    return [
        ClipTokens(f"clip{i}", kinds[i % 3], i % 3 == 2, draw.normal(size=(2, 5)).astype(np.float32))
        for i in range(count)
    ]


def test_pca_finds_the_two_directions_of_most_variance() -> None:
    draw = np.random.default_rng(SEED)
    plane = np.linalg.qr(draw.normal(size=(6, 2)))[0]
    coordinates = draw.normal(size=(50, 2)) * (5.0, 1.0)
    vectors = coordinates @ plane.T + 3.0
    places = pca(vectors)
    # Distances in the plane are those of the vectors, whichever way the axes point.
    gaps = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (vectors, places)]
    np.testing.assert_allclose(*gaps, atol=1e-9, err_msg=f"seed {SEED}")
    assert places[:, 0].var() > places[:, 1].var()
    assert abs((places[:, 0] * places[:, 1]).sum()) < 1e-9
    np.testing.assert_allclose(pca(vectors[::-1]), places[::-1], atol=1e-9)


def test_every_token_is_a_point_with_its_clips_classes() -> None:
    points = place_tokens(clips())
    assert [(point.clip, point.token) for point in points[:3]] == [("clip0", 0), ("clip0", 1), ("clip1", 0)]
    assert {point.label for point in points} == {"S: man", "S: guitar", "M: guitar+man"}
    some = place_tokens(clips(), classes=["man"])
    assert {point.clip for point in some} == {"clip0", "clip3"}
    unknown = ClipTokens("x", (), True, np.ones((2, 5), np.float32))
    assert place_tokens([unknown])[0].label == "M: unknown"


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'tsne'"):
        place_tokens(clips(), "tsn")
    with pytest.raises(UsageError, match="Did you mean 'guitar'"):
        place_tokens(clips(), classes=["gitar"])
    with pytest.raises(UsageError, match="at least 2"):
        place_tokens([])


def test_tsne() -> None:
    pytest.importorskip("sklearn", reason="needs the extra 'inspect'")
    one, two = place_tokens(clips(), "tsne"), place_tokens(clips(), "tsne")
    assert one == two
    assert np.isfinite([(point.x, point.y) for point in one]).all()
    with pytest.raises(UsageError, match="at least 4"):
        place_tokens(clips(1), "tsne")


def test_tsne_without_scikit_learn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(UsageError, match=r"avsbench-harness\[inspect\].*pca"):
        place_tokens(clips(), "tsne")


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens.png"
    draw_tokens(place_tokens(clips()), "title [brackets]", path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44)} <= colours  # three labels, three colours
