"""The reported values: completeness, spot checks and comparable metrics."""

from __future__ import annotations

from collections import Counter

import pytest

from avsbench_harness.method import methods
from avsbench_harness.results.reported import papers, reported_values

#: Number of values per table, counted in the papers.
COUNTS = {
    ("AQFormer", "Table 1"): 30, ("AQFormer", "Table 2a"): 6, ("AQFormer", "Table 2b"): 8,
    ("AQFormer", "Table 2c"): 8, ("AQFormer", "Table 2d"): 6,
    ("AVSegFormer", "Table 1"): 52, ("AVSegFormer", "Table 2a"): 16, ("AVSegFormer", "Table 2b"): 8,
    ("AVSegFormer", "Table 2c"): 12, ("AVSegFormer", "Table 2d"): 12,
    ("CATR", "Table 1"): 48, ("CATR", "Table 2"): 8, ("CATR", "Table 3"): 20, ("CATR", "Table 4"): 24,
    ("CATR", "Table 5"): 8, ("CATR", "Table 6"): 16,
    ("COMBO", "Table 1"): 92, ("COMBO", "Table 2"): 20, ("COMBO", "Table 3"): 16, ("COMBO", "Table 4"): 10,
    ("COMBO", "Table 5"): 16, ("COMBO", "Table 6"): 8, ("COMBO", "Table 7"): 16,
    ("QDFormer", "Table 1"): 85, ("QDFormer", "Table 2"): 24, ("Later work", "Collection"): 88,
}  # fmt: skip

#: (paper, table, row, method, backbone, task, metric) -> value in percent.
SPOT = {
    ("COMBO", "Table 1", "COMBO (ours)", "combo", "pvt", "ms3", "J"): 59.2,
    ("COMBO", "Table 2", "AVSegFormer", "avsegformer", "pvt", "avss", "F"): 42.0,
    ("COMBO", "Table 4", "w/o shared weights", "combo", "r50", None, "parameters (M)"): 158.9,
    ("COMBO", "Table 7", "10", "combo", "r50", "avss", "J"): 32.1,
    ("AVSegFormer", "Table 1", "AVSegFormer-R50 (ours)", "avsegformer", "r50", "s4", "mIoU"): 76.45,
    ("AVSegFormer", "Table 2c", "CRA", "avsegformer", "pvt", "ms3", "F"): 68.2,
    ("CATR", "Table 1", "CATR*", "catr", "pvt", "s4", "F"): 91.3,
    ("CATR", "Table 4", "CATR w audio", "catr", "r50", "ms3", "J"): 52.1,
    ("CATR", "Table 6", "128", "catr", "pvt", "ms3", "F"): 72.9,
    ("AQFormer", "Table 1", "AQFormer (ours), MS3*", "aqformer", "pvt", "ms3", "J"): 62.2,
    ("AQFormer", "Table 2d", "2", "aqformer", "r50", "ms3", "F"): 63.2,
    ("QDFormer", "Table 1", "QDFormer", "qdformer", "swin_t", "avss", "mIoU"): 53.4,
    ("QDFormer", "Table 2", "+ Q-based-SD", "qdformer", "r50", "ms3", "J&F"): 59.7,
    ("Later work", "Collection", "KEVA", "KEVA", "Swin-B", "ms3", "F"): 84.88,
    ("Later work", "Collection", "EASE", "EASE", "ViT-L (DINOv3)", "avss", "J"): 56.5,
}

#: Methods in the papers' tables that are not plugins.
FOREIGN = {
    "LVS", "MSSL", "3DC", "SST", "AOT", "iGAN", "LGVT", "Bi-Gen", "DiffusionAVS", "ECMVAE", "BAVS", "CSMF",
    "CAVP", "GAVS", "TeSO", "AAVS", "SAVE", "AVS-Mamba", "VCT", "ICF", "DDESeg", "SSP", "EASE", "KEVA",
    "DGCM-AVS",
}  # fmt: skip


def test_number_of_values_per_table() -> None:
    assert Counter((value.paper, value.table) for value in reported_values()) == COUNTS


@pytest.mark.parametrize("place", SPOT)
def test_spot_values(place) -> None:
    (value,) = [
        value
        for value in reported_values()
        if (
            value.paper, value.table, value.row, value.method, value.backbone, value.task, value.metric
        ) == place
    ]  # fmt: skip
    assert value.value == SPOT[place]


def test_values_are_unique() -> None:
    places = Counter(
        (value.paper, value.table, value.row, value.backbone, value.task, value.metric)
        for value in reported_values()
    )
    assert not [place for place, number in places.items() if number > 1]


def test_methods_are_known_and_scores_are_percentages() -> None:
    assert {value.method for value in reported_values()} <= FOREIGN | set(methods())
    assert all(0 < value.value <= 100 for value in reported_values() if value.task)
    assert all(paper.source and paper.title for paper in papers())


def test_metrics_with_another_definition_have_no_canonical_metric() -> None:
    own = {
        value.metric: value.canonical_metric
        for value in reported_values()
        if value.paper == "QDFormer" and value.method == "qdformer" and value.task == "ms3"
    }
    assert own == {"J&F": None, "J": "J", "contour F": None}


def test_values_that_were_not_checked_against_their_paper_are_marked() -> None:
    """KEVA's are quoted from a README of others, EASE's are the paper's."""
    marked = {value.method for value in reported_values() if "second hand" in (value.protocol or "")}
    assert {"KEVA", "TeSO", "ICF", "DGCM-AVS"} <= marked
    assert marked.isdisjoint({"EASE", "SSP", "combo", "avsegformer"})
