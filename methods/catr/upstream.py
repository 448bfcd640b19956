"""Names of the published state dict (CATR, aa3615c) in this implementation."""

from __future__ import annotations

import re

from avsbench_harness.weights.strict import RenameRules, pvt_v2_name

#: The backbone of the published weights.
BACKBONES = ("pvt",)

#: Parts of the published pyramid decoder, numbered from 1; here they are indexed from 0.
PYRAMID = {"lay": "steps.{}.0", "gn": "steps.{}.1", "adapter": "laterals.{}"}


def _pyramid(match: re.Match[str]) -> str:
    return f"mask_feature.{PYRAMID[match[1]].format(int(match[2]) - 1)}."


rename = RenameRules(
    # The audio encoder, which is the harness's.
    (r"^(.*\.)?(vggish|audio_(backbone|encoder|vggish))\.", None),
    # Entries that the published forward pass never uses: the head of the finest level, the fusion of levels,
    # three attention modules beside the blocks, a projection in every fusion, and the last block's fusion
    # from pixels to audio.
    (r"^(conv1\.|path[1-4]\.|fusion_module\.)", None),
    (r"^transformer\.temporal_encoder\.(av_atten\.|va_atten\.|layers\.\d+\.[av]{2}_atten\.vid_embed_proj\.|"
     r"layers\.2\.va_atten\.)", None),
    (r"^encoder_backbone\.(.*)", lambda match: "backbone.body." + pvt_v2_name(match[1])),
    (r"^spatial_decoder\.(lay|gn|adapter)(\d)\.", _pyramid),
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
