"""The shared method tests on AQFormer."""

from __future__ import annotations

from avsbench_methods.aqformer import AQFormer

from avsbench_harness.method_suite import MethodSuite


class TestAQFormer(MethodSuite):
    method = AQFormer()
    options = {
        "dim": 64, "ffn_dim": 64, "encoder_layers": 1, "encoder_ffn_dim": 64, "abti_dim": 64, "stages": 1,
    }  # fmt: skip
