"""Names of the published state dicts (AVSegFormer, May and August 2023) in this implementation."""

from __future__ import annotations

from avsbench_harness.weights.strict import RenameRules, pvt_v2_name

#: Backbones of the published weights.
BACKBONES = ("r50", "pvt")

#: Names in a network with a mask reformer, which the forward pass of the first public code uses.
rename_with_reformer = RenameRules(
    # The audio encoder, which is the harness's, and the second branch of ResNet, which is never used.
    (r"^(vggish\.|backbone\.layer[34]_2\.)", None),
    (r"^backbone\.(layer[34])_1\.", r"backbone.\1."),  # the first of two branches
    (r"^backbone\.(.*)", lambda match: "backbone.body." + pvt_v2_name(match[1])),
    (r"^audio_proj\.", "audio_projection."),
    (r"^head\.in_proj\.", "input_projections."),
    (r"^head\.transformer\.(encoder|decoder)\.", r"\1."),
    (r"^head\.level_embed$", "encoder.level_embedding"),
    (r"^head\.learnable_query\.weight$", "decoder_queries"),
    (r"^head\.query_generator\.query\.weight$", "query_generator.queries"),
    (r"^head\.query_generator\.", "query_generator."),
    (r"^head\.lateral_conv\.", "mask_feature.lateral."),
    (r"^head\.out_conv\.", "mask_feature.output."),
    (r"^head\.fusion_block\.", "mixer."),
    (r"^head\.mlp\.layers\.0\.", "mask_head.mlp_in."),
    (r"^head\.mlp\.layers\.1\.", "mask_head.mlp_hidden."),
    (r"^head\.mlp\.layers\.2\.", "mask_head.mlp_out."),
    (r"^head\.fpn\.up([123])\.1\.", lambda match: f"mask_reformer.steps.{int(match[1]) - 1}."),
    (r"^head\.fc\.", "mask_head.classifier."),
    (r"^head\.attn_fc\.", "mask_reformer.classifier."),
    (r"\.classifier\.0\.", ".classifier.reduce."),
    (r"\.classifier\.2\.", ".classifier.refine."),
    (r"\.classifier\.4\.", ".classifier.classify."),
    (r"\.in_proj_(weight|bias)$", r".in_proj.\1"),
    (r"\.(linear[12])\.", r".ffn.\1."),  # encoder and decoder
    (r"\.ffn\.0\.", ".ffn.linear1."),  # query generator
    (r"\.ffn\.2\.", ".ffn.linear2."),
)


def rename(name: str) -> str | None:
    """The name in a network without a mask reformer, which the released code stores but never uses."""
    renamed = rename_with_reformer(name)
    return None if renamed is not None and renamed.startswith("mask_reformer.") else renamed
