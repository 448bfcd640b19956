"""Run lengths against values of pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from avsbench_harness.errors import UsageError
from avsbench_harness.video.rle import coco_annotations, counts_of, decode_mask, encode_mask

#: The first mask of cocoapi's `results/instances_val2014_fakesegm100_results.json`. The bounding box of the
#: same object in `fakebbox100` is [258.15, 41.29, 348.26, 243.78].
EXAMPLE = (
    "VQi31m>0O2N100O100O2N100O10001N101O1N2O1O2M2O1O1N3N1O1N2O2N1N2O1O1N3N1O1N2O2N1N2O1O2M2O1O1M3M4K4M3M3M4L3"
    "M3M3M4L3L4M3M3M4L3M3M3M4L3O1N2N101N1O2O0O2N101N1O2O0O2N101N1O2O0O1O2N101N1O2O0O2N101N1O2O0O2N101N1O2O0O1"
    "O2O0O2N101N1O2O0O2N101N101O001O1O001O1N2O001O1O1O001O1O1O001O1O001O1O1N101O1O1O001O1O1O001O1O1O001O1N2O0"
    "01O1O001O1O1O001O1O1O001O1O1N010000O10000O10000O10000O100O010O100O100O100O10000O100O100O10O0100O100O100O"
    "100O1O100O100O1O010O100O1O2O0O2N101N101N1O2O1N1O2O0O2O0O2N2O0O2N101N101N2N101N101N1O2O1N1O2O0O20O2O0O2O0"
    "01N101N100O2O001N101N101N101O0O101N101N101N101O0O101N101N1010O010O010O00010O0O2N1O2N1O2N1O2N1O2N1O2N1O2N"
    "1O2N1O2N1O2N1O2N1O2N1O2N1O2N1O2N1O2M2M4L3M4L3M4RNREGP;5UEGo:3XEHk:4ZEHj:2\\EJg:1_EKe:0`ELc:OcEMa:NdEN_:M"
    "gE0\\:JjE2Y:JlE2X:HnE4a<LZd?"
)


def test_the_example_of_coco_is_read_and_written() -> None:
    value = {"size": [478, 640], "counts": EXAMPLE}
    mask = decode_mask(value)
    assert encode_mask(mask) == value
    (annotation,) = coco_annotations(mask.astype(np.uint8) * np.uint8(3))
    np.testing.assert_allclose(annotation["bbox"], [258.15, 41.29, 348.26, 243.78], atol=1.3)
    assert annotation["category_id"] == 3
    assert annotation["segmentation"] == value
    assert annotation["area"] == mask.sum()


def test_counts_of_the_documentation_of_pycocotools() -> None:
    assert counts_of(np.array([[0, 0, 1, 1, 1, 0, 1]]).T) == [2, 3, 1, 1]
    assert counts_of(np.array([[1, 1, 1, 1, 1, 1, 0]]).T) == [0, 6, 1]


def test_runs_go_down_the_columns() -> None:
    mask = np.zeros((3, 4), bool)
    mask[1:, 1] = True
    assert counts_of(mask) == [4, 2, 6]
    assert encode_mask(mask) == {"size": [3, 4], "counts": "426"}


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_decoding_inverts_encoding(mask: np.ndarray) -> None:
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


def test_runs_of_another_size_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fill a mask of 3 x 5 pixels"):
        decode_mask({"size": [3, 5], "counts": "426"})
