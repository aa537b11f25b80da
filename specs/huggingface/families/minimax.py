"""MiniMax: M2 (grouped queries), M3 (with a sparse indexer), and Text-01 and M1 (lightning attention)."""

from __future__ import annotations

from specs.blocks.attention import BlockIndexer, GqaAttention
from specs.blocks.recurrent import Lightning
from specs.huggingface.architecture import Architecture, Family, Mixer, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import HEADS, every, gqa, head_dim, layer_kinds
from specs.huggingface.parts.experts import dense, first_dense, mixed, moe


def _norm(config: Config, default: str) -> str:
    if not config.flag("use_qk_norm", default=True):
        return ""
    word = config.chosen("qk_norm_type", config.text("qk_norm_type", default=default), ("per_layer", "per_head"))
    return "head" if word == "per_head" else "all_heads"


def _next_token(config: Config) -> int:
    return config.integer("num_mtp_modules", default=0, least=0) if config.flag("use_mtp", default=True) else 0


def _m2(config: Config) -> Architecture:
    layers = config.layers()
    mixer = gqa(config, qk_norm=_norm(config, "per_layer"))
    experts = moe(config, router_bias=config.flag("use_routing_bias", default=True))
    layout = stack([mixer] * layers, [experts] * layers, ffn_path="block_sparse_moe|mlp")
    return Architecture(layout, next_token=_next_token(config))


def _m3(config: Config) -> Architecture:
    layers = config.layers()
    experts = moe(
        config,
        router_bias=config.flag("use_routing_bias", default=True),
        shared_experts=config.integer("n_shared_experts", default=1, least=0),
    )
    plain = first_dense(config, layers)
    ffns = [dense(config, "dense_intermediate_size") if i in plain else experts for i in range(layers)]
    layout = stack(_sparse(config, layers), ffns, ffn_path="block_sparse_moe|mlp")
    return Architecture(layout, next_token=_next_token(config))


def _sparse(config: Config, layers: int) -> list[GqaAttention]:
    """[layers] attention; some layers pick what they attend to, by blocks."""
    section = config.section("sparse_attention_config")
    fields = config if section is None else section
    full = gqa(config, qk_norm=_norm(config, "per_head"))
    words = config.kinds("layer_types", layers=layers)
    if words is not None:
        picks = [word != "full_attention" for word in words]
    elif section is not None and section.has("sparse_attention_freq"):
        picks = [bool(each) for each in section.by_layer("sparse_attention_freq", layers=layers)]
    else:
        picks = [False] * layers
    if not any(picks):
        return [full] * layers
    index = config.build(
        BlockIndexer,
        "sparse_attention_config",
        heads=fields.integer("sparse_num_index_heads", "index_n_heads", default=4),
        head_dim=fields.integer("sparse_index_dim", "index_head_dim", default=128),
        block=fields.integer("sparse_block_size", "index_block_size", default=128),
        top_blocks=fields.integer("sparse_topk_blocks", "index_topk_blocks", default=16),
    )
    sparse = full.model_copy(update={"indexer": index})
    return [sparse if picked else full for picked in picks]


def _text_01(config: Config) -> Architecture:
    layers = config.layers()
    kinds = layer_kinds(config, layers)
    if kinds is None:
        stated = config.has("attn_type_list")
        kinds = (
            ["full" if each else "linear" for each in config.by_layer("attn_type_list", layers=layers)]
            if stated
            else every(2, layers, other="linear")
        )
    heads = config.integer(*HEADS)
    linear = config.build(
        Lightning, "num_attention_heads", kind="lightning", heads=heads, head_dim=head_dim(config, heads)
    )
    full = gqa(config)
    mixers: list[Mixer] = [linear if kind == "linear" else full for kind in kinds]
    ffns = mixed(config, moe(config), set(), layers)
    return Architecture(stack(mixers, ffns, ffn_path="block_sparse_moe|mlp"))


FAMILIES = (
    Family(("minimax_m2",), _m2, ("MiniMaxM2ForCausalLM",)),
    Family(
        ("minimax_m3", "minimax_m3_text", "minimax_m3_vl", "minimax_m3_vl_text"), _m3, ("MiniMaxM3SparseForCausalLM",)
    ),
    Family(
        ("minimax", "minimax_text_01", "minimax_m1", "minimax_vl_01"),
        _text_01,
        ("MiniMaxForCausalLM", "MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"),
    ),
)
