"""Names of the published state dict (AVSBench, f7414af) in this implementation."""

from __future__ import annotations

import re

from avsbench_harness.weights.strict import RenameRules, pvt_v2_name

#: Backbones of the published weights.
BACKBONES = ("r50", "pvt")
#: Published modules with the number of their stage, from 1, in the name; here it is an index, from 0.
STAGED = {"conv": "projections", "path": "decoder.blocks", "tpavi_b": "interactions"}


def _staged(match: re.Match[str]) -> str:
    return f"{STAGED[match[1]]}.{int(match[2]) - 1}."


rename = RenameRules(
    # The audio encoder, which is the harness's, and entries that the published forward pass never uses.
    (r"^((audio_backbone|vggish)\.|resnet\.layer[34]_2\.|path4\.resConfUnit1\.)", None),
    (r"^resnet\.(layer[34])_1\.", r"resnet.\1."),  # the first of two branches
    (r"^resnet\.", "backbone.body."),
    (r"^encoder_backbone\.(.*)", lambda match: "backbone.body." + pvt_v2_name(match[1])),
    (r"^(conv|path|tpavi_b)([1-4])\.", _staged),
    (r"\.conv2d_list\.", ".convs."),
    (r"\.resConfUnit1\.", ".level_unit."),
    (r"\.resConfUnit2\.", ".unit."),
    (r"\.align_channel\.", ".align."),
    (r"\.norm_layer\.", ".norm."),
    (r"\.W_z\.0\.", ".out."),
    (r"\.W_z\.1\.", ".out_norm."),
    (r"^output_conv\.0\.", "decoder.reduce."),
    (r"^output_conv\.2\.", "decoder.refine."),
    (r"^output_conv\.4\.", "decoder.classify."),
)
