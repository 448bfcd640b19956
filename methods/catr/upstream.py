"""Names of the published state dict (CATR, aa3615c) in this implementation."""

from __future__ import annotations

import re

from avsbench_harness.weights.strict import pvt_v2_name

#: The audio encoder, which is the harness's.
AUDIO = re.compile(r"(.*\.)?(vggish|audio_(backbone|encoder|vggish))\.")

#: Entries that the published forward pass never uses: the head of the finest level, the fusion of levels,
#: three attention modules beside the blocks, a projection in every fusion, and the last block's fusion from
#: pixels to sound.
UNUSED = re.compile(
    r"conv1\.|path[1-4]\.|fusion_module\.|transformer\.temporal_encoder\.("
    r"av_atten\.|va_atten\.|layers\.\d+\.[av]{2}_atten\.vid_embed_proj\.|layers\.2\.va_atten\.)"
)

#: (published, ours), applied one after the other.
RULES = (
    (r"^conv2\.conv2d_list\.", "levels.0.convs."),
    (r"^conv3\.conv2d_list\.", "levels.1.convs."),
    (r"^conv4\.conv2d_list\.", "levels.2.convs."),
    (r"^vid_embed_proj\.", "video_projection."),
    (r"^obj_queries\.weight$", "decoder.queries"),
    (r"^transformer\.audio_proj\.fc\.", "audio_projection.linear."),
    (r"^transformer\.audio_proj\.layer_norm\.", "audio_projection.norm."),
    (r"^transformer\.spatial_encoder\.", "spatial_encoder."),
    (r"^transformer\.temporal_encoder\.attention_feature\.0\.", "temporal_encoder.gate.conv."),
    (r"^transformer\.temporal_encoder\.output1\.", "temporal_encoder.gate.merge.0."),
    (r"^transformer\.temporal_encoder\.output2\.", "temporal_encoder.gate.merge.1."),
    (r"^transformer\.temporal_encoder\.layers\.(\d+)\.av_atten\.multihead_attn\.",
     r"temporal_encoder.layers.\1.to_video.attention."),
    (r"^transformer\.temporal_encoder\.layers\.(\d+)\.va_atten\.multihead_attn\.",
     r"temporal_encoder.layers.\1.to_audio.attention."),
    (r"^transformer\.temporal_encoder\.layers\.(\d+)\.", r"temporal_encoder.layers.\1.spatial."),
    (r"^transformer\.decoder\.", "decoder."),
    (r"^(decoder\.layers\.\d+)\.multihead_attn\.", r"\1.cross_attn."),
    (r"\.in_proj_(weight|bias)$", r".in_proj.\1"),
    (r"\.(linear[12])\.", r".ffn.\1."),
    (r"^spatial_decoder\.out_lay\.", "mask_feature.output."),
    (r"^is_referred_head\.", "reference_head."),
    (r"^instance_kernels_head\.layers\.0\.", "kernel_head.0."),
    (r"^instance_kernels_head\.layers\.1\.", "kernel_head.2."),
)  # fmt: skip

#: Numbered parts of the published pyramid decoder, counted from 1, and ours.
NUMBERED = re.compile(r"^spatial_decoder\.(lay|gn|adapter)(\d)\.")
PARTS = {"lay": "steps.{}.0", "gn": "steps.{}.1", "adapter": "laterals.{}"}


def rename(name: str) -> str | None:
    """Our name of a published entry, ``None`` if it is left out; an unknown name comes back as it is."""
    name = name.removeprefix("module.")  # DataParallel
    if AUDIO.match(name) or UNUSED.match(name):
        return None
    if name.startswith("encoder_backbone."):
        return "backbone.body." + pvt_v2_name(name.removeprefix("encoder_backbone."))
    match = NUMBERED.match(name)
    if match:
        part = PARTS[match[1]].format(int(match[2]) - 1)
        return f"mask_feature.{part}.{name[match.end() :]}"
    for published, ours in RULES:
        name = re.sub(published, ours, name)
    return name
