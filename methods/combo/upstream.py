"""Names of the published state dict (COMBO-AVS, cb8af1c) in this implementation."""

from __future__ import annotations

import re

from avsbench_harness.weights.strict import RenameRules, pvt_v2_name

#: Backbones of the published weights.
BACKBONES = ("r50", "pvt")

#: Names of detectron2's ResNet in timm.
resnet_name = RenameRules(
    (r"^stem\.", ""),
    (r"^res([2-5])\.", lambda match: f"layer{int(match[1]) - 1}."),
    (r"\bshortcut\.norm\.", "downsample.1."),
    (r"\bshortcut\.", "downsample.0."),
    (r"\bconv([123])\.norm\.", r"bn\1."),
)


def _backbone(match: re.Match[str]) -> str:
    """Rename an entry of one of the two backbones, of the images and of the maskiges."""
    encoder = "maskige" if match[1] else "image"
    resnet = re.match(r"stem\.|res[2-5]\.", match[2])
    return f"backbone.{encoder}.body.{resnet_name(match[2]) if resnet else pvt_v2_name(match[2])}"


rename = RenameRules(
    # The audio encoder, which is the harness's, and constants of the loss and of the images' normalisation.
    (r"^(audio_backbone\.|criterion\.|pixel_(mean|std)$)", None),
    (r"^(pre_sam_)?backbone\.(.*)", _backbone),
    (r"^scale_factor_module\.", "channel_weights."),
    (r"^sem_seg_head\.pixel_decoder\.", "pixel_decoder."),
    (r"^pixel_decoder\.input_proj\.", "pixel_decoder.input_projections."),
    (r"^pixel_decoder\.transformer\.level_embed$", "pixel_decoder.level_embedding"),
    (r"^pixel_decoder\.transformer\.encoder\.", "pixel_decoder."),
    (r"^pixel_decoder\.adapter_1\.norm\.", "pixel_decoder.lateral.1."),
    (r"^pixel_decoder\.adapter_1\.", "pixel_decoder.lateral.0."),
    (r"^pixel_decoder\.layer_1\.norm\.", "pixel_decoder.output.1."),
    (r"^pixel_decoder\.layer_1\.", "pixel_decoder.output.0."),
    (r"^sem_seg_head\.fusion_module\.", "fusion."),
    (r"^fusion\.level_embed\.weight$", "fusion.visual_embedding"),
    (r"^fusion\.audio_pos\.weight$", "fusion.audio_positions"),
    (r"^fusion\.b_attn\.gamma_v_list\.0$", "fusion.visual_gamma"),
    (r"^fusion\.b_attn\.gamma_a$", "fusion.audio_gamma"),
    (r"^fusion\.b_attn\.layer_norm_v_list\.0\.", "fusion.visual_norm."),
    (r"^fusion\.b_attn\.layer_norm_a_list\.0\.", "fusion.audio_norm."),
    (r"^fusion\.b_attn\.attn_list\.0\.", "fusion."),
    (r"^fusion\.values_v_proj\.", "fusion.visual_value."),
    (r"^fusion\.values_a_proj\.", "fusion.audio_value."),
    (r"^fusion\.out_v_proj\.", "fusion.visual_out."),
    (r"^fusion\.out_a_proj\.", "fusion.audio_out."),
    (r"^fusion\.v_proj\.", "fusion.query."),
    (r"^fusion\.a_proj\.", "fusion.key."),
    (r"^sem_seg_head\.audio_transformation\.embeddings\.", "audio_queries.mlp."),
    (r"^sem_seg_head\.predictor\.", "decoder."),
    (r"^decoder\.query_feat\.weight$", "audio_queries.queries"),
    (r"^decoder\.query_embed\.weight$", "audio_queries.positions"),
    (r"^decoder\.level_embed\.weight$", "decoder.level_embedding"),
    (r"^decoder\.decoder_norm\.", "decoder.norm."),
    (r"^decoder\.class_embed\.", "decoder.classify."),
    (r"^decoder\.mask_embed\.layers\.0\.", "decoder.mask_mlp.0."),
    (r"^decoder\.mask_embed\.layers\.1\.", "decoder.mask_mlp.2."),
    (r"^decoder\.mask_embed\.layers\.2\.", "decoder.mask_mlp.4."),
    (
        r"^decoder\.transformer_cross_attention_layers\.(\d+)\.multihead_attn\.",
        r"decoder.layers.\1.cross_attn.",
    ),
    (r"^decoder\.transformer_(cross|self)_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\2.\1_norm."),
    (
        r"^decoder\.transformer_(cross|self)_attention_layers\.(\d+)\.\w+_attn\.",
        r"decoder.layers.\2.\1_attn.",
    ),
    (r"^decoder\.transformer_ffn_layers\.(\d+)\.norm\.", r"decoder.layers.\1.ffn_norm."),
    (r"^decoder\.transformer_ffn_layers\.(\d+)\.", r"decoder.layers.\1."),
    (r"\.in_proj_(weight|bias)$", r".in_proj.\1"),
)
