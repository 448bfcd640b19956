"""Projection of audio tokens to two dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from avsbench_harness.analysis.token_projection import pca, project_tokens
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


def test_pca_preserves_vectors_in_a_plane() -> None:
    draw = np.random.default_rng(SEED)
    plane = np.linalg.qr(draw.normal(size=(6, 2)))[0]
    coordinates = draw.normal(size=(50, 2)) * (5.0, 1.0)
    vectors = coordinates @ plane.T + 3.0
    coordinates = pca(vectors)
    # Distances are preserved, whatever the signs of the axes.
    gaps = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (vectors, coordinates)]
    np.testing.assert_allclose(*gaps, atol=1e-9, err_msg=f"seed {SEED}")
    assert coordinates[:, 0].var() > coordinates[:, 1].var()
    assert abs((coordinates[:, 0] * coordinates[:, 1]).sum()) < 1e-9
    np.testing.assert_allclose(pca(vectors[::-1]), coordinates[::-1], atol=1e-9)


def test_points_have_the_classes_of_their_clips() -> None:
    points = project_tokens(clips())
    assert [(point.clip, point.token) for point in points[:3]] == [("clip0", 0), ("clip0", 1), ("clip1", 0)]
    assert {point.label for point in points} == {"S: man", "S: guitar", "M: guitar+man"}
    some = project_tokens(clips(), classes=["man"])
    assert {point.clip for point in some} == {"clip0", "clip3"}
    unknown = ClipTokens("x", (), True, np.ones((2, 5), np.float32))
    assert project_tokens([unknown])[0].label == "M: unknown"


def test_invalid_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'tsne'"):
        project_tokens(clips(), "tsn")
    with pytest.raises(UsageError, match="Did you mean 'guitar'"):
        project_tokens(clips(), classes=["gitar"])
    with pytest.raises(UsageError, match="at least 2"):
        project_tokens([])


def test_tsne() -> None:
    pytest.importorskip("sklearn", reason="needs the extra 'inspect'")
    one, two = project_tokens(clips(), "tsne"), project_tokens(clips(), "tsne")
    assert one == two
    assert np.isfinite([(point.x, point.y) for point in one]).all()
    with pytest.raises(UsageError, match="at least 4"):
        project_tokens(clips(1), "tsne")


def test_tsne_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(UsageError, match=r"avsbench-harness\[inspect\].*pca"):
        project_tokens(clips(), "tsne")
