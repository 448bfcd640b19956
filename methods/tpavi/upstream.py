"""Names of the published state dict (AVSBench, f7414af) in this implementation."""

from __future__ import annotations

import re

from avsbench_harness.weights.strict import pvt_v2_name

#: Entries that the published forward pass never uses, and the audio encoder, which is the harness's.
UNUSED = re.compile(r"(audio_backbone|vggish)\.|resnet\.layer[34]_2\.|path4\.resConfUnit1\.")

#: Published modules that carry the number of their stage, from 1; here it comes after the place, from 0.
STAGED = re.compile(r"(conv|path|tpavi_b)([1-4])\.")
PLACES = {"conv": "projections", "path": "decoder.blocks", "tpavi_b": "interactions"}

#: (published, ours), applied one after the other after that.
RULES = (
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


def rename(name: str) -> str | None:
    """Our name of a published entry, ``None`` if it is left out; an unknown name comes back as it is."""
    name = name.removeprefix("module.")  # DataParallel
    if UNUSED.match(name):
        return None
    if name.startswith("resnet."):
        # ResNet: the first of two branches.
        return "backbone.body." + re.sub(r"^(layer[34])_1\.", r"\1.", name.removeprefix("resnet."))
    if name.startswith("encoder_backbone."):
        return "backbone.body." + pvt_v2_name(name.removeprefix("encoder_backbone."))
    match = STAGED.match(name)
    if match:
        name = f"{PLACES[match[1]]}.{int(match[2]) - 1}.{name[match.end() :]}"
    for published, ours in RULES:
        name = re.sub(published, ours, name)
    return name
