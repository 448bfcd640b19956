"""Names of the published state dict (AVSegFormer, master of August 2023) in this implementation."""

from __future__ import annotations

import re

from avsbench_harness.weights.strict import pvt_v2_name

#: Entries that the published forward pass never uses, and the audio encoder, which is the harness's.
UNUSED = re.compile(r"vggish\.|head\.(fpn|attn_fc)\.|backbone\.layer[34]_2\.")

#: (published, ours), applied one after the other.
RULES = (
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
    (r"^head\.fc\.0\.", "mask_head.classifier.reduce."),
    (r"^head\.fc\.2\.", "mask_head.classifier.refine."),
    (r"^head\.fc\.4\.", "mask_head.classifier.classify."),
    (r"\.in_proj_(weight|bias)$", r".in_proj.\1"),
    (r"\.(linear[12])\.", r".ffn.\1."),  # encoder and decoder
    (r"\.ffn\.0\.", ".ffn.linear1."),  # query generator
    (r"\.ffn\.2\.", ".ffn.linear2."),
)


def rename(name: str) -> str | None:
    """Our name of a published entry, ``None`` if it is left out; an unknown name comes back as it is."""
    name = name.removeprefix("module.")  # DataParallel
    if UNUSED.match(name):
        return None
    if name.startswith("backbone."):
        name = re.sub(r"\.(layer[34])_1\.", r".\1.", name)  # ResNet: the first of two branches
        return "backbone.body." + pvt_v2_name(name.removeprefix("backbone."))
    for published, ours in RULES:
        name = re.sub(published, ours, name)
    return name
