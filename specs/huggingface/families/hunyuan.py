"""Hunyuan: A13B (`hunyuan_v1_moe`, with numbers that may differ by layer) and version 3."""

from __future__ import annotations

from specs.huggingface.architecture import Architecture, Family, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import gqa
from specs.huggingface.parts.experts import EXPERTS, SHARED, TOP_K, first_dense, mixed, moe


def _v1(config: Config) -> Architecture:
    layers = config.layers()
    if config.flag("use_cla") and config.integer("cla_share_factor", default=1) > 1:
        raise config.error("use_cla", "is true: layers that share keys can't be planned", "describe the model in YAML")
    usual = config.by_layer("intermediate_size", layers=layers, least=1)
    has_shared = config.flag("use_mixed_mlp_moe", default=True)
    experts = config.by_layer(*EXPERTS, layers=layers, least=1)
    top_k = config.by_layer(*TOP_K, layers=layers, least=1)
    widths = config.by_layer("moe_intermediate_size", layers=layers, least=1, default=usual[0])
    shared = config.by_layer(*SHARED, layers=layers, default=1)
    moes = [
        moe(
            config,
            experts=experts[i],
            top_k=top_k[i],
            expert_width=widths[i],
            shared_experts=shared[i] * has_shared,
            shared_width=usual[i],
        )
        for i in range(layers)
    ]
    norm = "head" if config.flag("use_qk_norm", default=True) else ""
    first = config.integer("moe_layer_num_skipped", default=0, least=0)
    ffns = mixed(config, moes, set(range(min(first, layers))), layers)
    return Architecture(stack([gqa(config, qk_norm=norm)] * layers, ffns))


def _v3(config: Config) -> Architecture:
    layers = config.layers()
    width = config.integer("expert_hidden_dim", "moe_intermediate_size")
    norm = "head" if config.flag("qk_norm", "use_qk_norm", default=True) else ""
    ffns = mixed(config, moe(config, expert_width=width, router_bias=True), first_dense(config, layers, 1), layers)
    layout = stack([gqa(config, output_bias=False, qk_norm=norm)] * layers, ffns)
    return Architecture(layout, next_token=next_token_modules(config))


FAMILIES = (
    Family(("hunyuan_v1_moe", "hunyuan"), _v1, ("HunYuanMoEV1ForCausalLM", "HunYuanMoeForCausalLM")),
    Family(("hy_v3",), _v3, ("HYV3ForCausalLM",)),
)
