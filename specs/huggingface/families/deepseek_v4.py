"""DeepSeek-V4: compressed attention by layer, hash-routed first layers, several residual streams."""

from __future__ import annotations

from specs.blocks.latent import CompressedAttention
from specs.huggingface.architecture import Architecture, Family, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import HEADS, indexer, window
from specs.huggingface.parts.experts import moe

#: Entries that overlap stand for this many tokens, and have an indexer; others have neither.
SPARSE_RATIO = 4
_RATIOS = {"sliding_attention": 0, "compressed_sparse_attention": SPARSE_RATIO, "heavily_compressed_attention": 128}


def _v4(config: Config) -> Architecture:
    layers = config.layers()
    mixers = [_attention(config, ratio) for ratio in _ratios(config, layers)]
    hashed = config.optional("num_hash_layers", least=0)
    hashed = 3 if hashed is None else hashed
    scored = moe(config, router_bias=True)
    looked_up = moe(config, hash_routed=True)
    ffns = [looked_up if i < hashed else scored for i in range(layers)]
    return Architecture(
        stack(mixers, ffns, mixer_path="attn|self_attn", ffn_path="ffn|mlp"),
        streams=config.integer("hc_mult", default=4),
        next_token=next_token_modules(config),
        expert_dtype="fp4",
        unquantized=("indexer.weights_proj",),
    )


def _ratios(config: Config, layers: int) -> list[int]:
    """[layers] tokens that one compressed entry stands for; 0: the window alone."""
    words = config.kinds("layer_types", layers=layers)
    if words is None:
        return config.by_layer("compress_ratios", layers=layers)
    return [_RATIOS[config.chosen("layer_types", word, _RATIOS)] for word in words]


def _attention(config: Config, ratio: int) -> CompressedAttention:
    sparse = ratio == SPARSE_RATIO
    return config.build(
        CompressedAttention,
        config.raw(*HEADS)[0],
        kind="compressed",
        heads=config.integer(*HEADS),
        head_dim=config.integer("head_dim", default=512),
        q_rank=config.integer("q_lora_rank", default=1024),
        output_groups=config.integer("o_groups", default=8),
        output_rank=config.integer("o_lora_rank", default=1024),
        window=window(config) or 128,
        ratio=ratio,
        overlap=sparse,
        indexer=indexer(config) if sparse else None,
    )


FAMILIES = (Family(("deepseek_v4",), _v4, ("DeepseekV4ForCausalLM",)),)
