"""The shared method tests, on every method that ships and on the tests' own."""

from __future__ import annotations

from pathlib import Path

from avsbench_methods.avsegformer import AVSegFormer

from avsbench_harness.method import from_folder
from avsbench_harness.method_suite import MethodSuite

DATA = Path(__file__).parents[1] / "data"


class TestTiny(MethodSuite):
    method = from_folder(DATA / "tiny_method")


class TestAVSegFormer(MethodSuite):
    method = AVSegFormer()
    options = {
        "queries": 8, "dim": 32, "encoder_layers": 1, "decoder_layers": 1, "generator_layers": 1,
        "ffn_dim": 64, "mask_mlp_dim": 32, "mask_channels": 16,
    }  # fmt: skip
    frames = 5
