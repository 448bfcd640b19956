"""The shared method tests, on every method that ships and on the tests' own."""

from __future__ import annotations

from pathlib import Path

from avsbench_methods.aqformer import AQFormer
from avsbench_methods.avsegformer import AVSegFormer
from avsbench_methods.catr import CATR
from avsbench_methods.combo import Combo
from avsbench_methods.qdformer import QDFormer
from avsbench_methods.tpavi import TPAVI

from avsbench_harness.method import from_folder
from avsbench_harness.testing.method_suite import MethodSuite

DATA = Path(__file__).parents[1] / "fixtures"


class TestTiny(MethodSuite):
    method = from_folder(DATA / "tiny_method")


class TestAQFormer(MethodSuite):
    method = AQFormer()
    options = {
        "dim": 64, "ffn_dim": 64, "encoder_layers": 1, "encoder_ffn_dim": 64, "abti_dim": 64, "stages": 1,
    }  # fmt: skip
    frames = 5


class TestAVSegFormer(MethodSuite):
    method = AVSegFormer()
    options = {
        "queries": 8, "dim": 32, "encoder_layers": 1, "decoder_layers": 1, "generator_layers": 1,
        "ffn_dim": 64, "mask_mlp_dim": 32, "mask_channels": 16,
    }  # fmt: skip
    frames = 5


class TestAVSegFormerPaper(TestAVSegFormer):
    variant = "paper"
    options = {
        name: value
        for name, value in TestAVSegFormer.options.items()
        if name not in ("generator_layers", "mask_channels")  # it has neither generator nor upsampling head
    }


class TestCATR(MethodSuite):
    method = CATR()
    options = {"queries": 8, "dim": 64, "kernel_channels": 16, "decoder_layers": 2, "ffn_dim": 64}
    tasks = ("s4", "ms3")


class TestCATRPaper(TestCATR):
    variant = "paper"
    tasks = None


class TestCombo(MethodSuite):
    method = Combo()
    options = {
        "queries": 8, "dim": 64, "encoder_layers": 1, "encoder_ffn_dim": 64, "decoder_layers": 2,
        "ffn_dim": 64, "audio_mlp_dim": 64, "loss_points": 64,
    }  # fmt: skip
    frames = 5
    maskige = True
    clips_are_independent = False  # audio_pairing: scrambled


class TestComboPaper(TestCombo):
    variant = "paper"
    clips_are_independent = True
    padding_is_inert = True


class TestQDFormer(MethodSuite):
    method = QDFormer()
    options = {
        "dim": 32, "heads": 4, "ffn_dim": 32, "encoder_layers": 1, "semantic_layers": 1, "decoder_layers": 1,
        "codebook_size": 16, "tokens": 3, "unquantized_steps": 1,
    }  # fmt: skip
    frames = 5


class TestTPAVI(MethodSuite):
    method = TPAVI()
    options = {"dim": 32}
    frames = 5


class TestTPAVIPaper(TestTPAVI):
    variant = "paper"
