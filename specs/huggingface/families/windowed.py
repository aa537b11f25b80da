"""Grouped queries with windows in most layers: MiMo-V2, Command A MoE, K-EXAONE, Trinity (afmoe), openPangu Pro."""

from __future__ import annotations

from typing import Any

from specs.huggingface.architecture import Architecture, Family, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import every, gqa, layer_kinds, window, windows
from specs.huggingface.parts.experts import dense, first_dense, mixed, moe


def _mimo(config: Config) -> Architecture:
    """Sliding layers have heads of their own (`swa_*`), and sinks."""
    layers = config.layers()
    kinds = layer_kinds(config, layers)
    if kinds is None and config.has("hybrid_layer_pattern"):
        kinds = ["sliding" if each else "full" for each in config.by_layer("hybrid_layer_pattern", layers=layers)]
    if kinds is None:
        kinds = ["full" if i == 0 or (i + 1) % 6 == 0 else "sliding" for i in range(layers)]
    values: dict[str, Any] = {"value_dim": config.optional("v_head_dim"), "output_bias": False}
    full = gqa(config, sinks=config.flag("add_full_attention_sink_bias"), **values)
    own: dict[str, Any] = {"value_dim": config.optional("swa_v_head_dim", "v_head_dim"), "output_bias": False}
    for field, name in (
        ("query_heads", "swa_num_attention_heads"),
        ("kv_heads", "swa_num_key_value_heads"),
        ("head_dim", "swa_head_dim"),
    ):
        own[field] = config.optional(name) or getattr(full, field)
    sinks = config.flag("add_swa_attention_sink_bias", default=True)
    sliding = gqa(config, window=window(config), sinks=sinks, **own)
    mixers = [sliding if kind == "sliding" else full for kind in kinds]
    ffns = mixed(config, moe(config, router_bias=True), first_dense(config, layers, 1), layers)
    return Architecture(stack(mixers, ffns), next_token=next_token_modules(config))


def _cohere(config: Config) -> Architecture:
    layers = config.layers()
    first = config.integer("first_k_dense_replace", default=0, least=0)
    usual = ["full"] * min(first, layers)
    usual += every(config.integer("sliding_window_pattern", default=4), layers - len(usual))
    mixers = [gqa(config, window=each) for each in windows(config, layers, usual)]
    plain = first_dense(config, layers)
    width = config.optional("prefix_dense_intermediate_size") or config.integer("intermediate_size")
    experts = moe(config)
    narrow = dense(config, width=width)
    return Architecture(stack(mixers, [narrow if i in plain else experts for i in range(layers)]), tied=True)


def _exaone(config: Config) -> Architecture:
    layers = config.layers()
    pattern = config.raw("sliding_window_pattern")[1]
    if isinstance(pattern, str) and pattern:
        usual = ["sliding" if pattern[i % len(pattern)] == "L" else "full" for i in range(layers)]
    else:
        usual = every(config.integer("sliding_window_pattern", default=4, least=0), layers)
    mixers = [gqa(config, qk_norm="head", window=each) for each in windows(config, layers, usual)]
    ffns = mixed(config, moe(config, router_bias=True), first_dense(config, layers, 1), layers)
    return Architecture(stack(mixers, ffns), next_token=next_token_modules(config))


def _afmoe(config: Config) -> Architecture:
    layers = config.layers()
    usual = every(config.integer("global_attn_every_n_layers", default=4), layers)
    seen = windows(config, layers, usual)
    mixers = [gqa(config, qk_norm="head", gate="element", window=each) for each in seen]
    ffns = mixed(config, moe(config, router_bias=True), first_dense(config, layers, 1), layers)
    return Architecture(stack(mixers, ffns))


def _laguna(config: Config) -> Architecture:
    """Query heads may differ by layer, and each has a gate."""
    layers = config.layers()
    default = config.integer("num_attention_heads")
    heads = config.by_layer("num_attention_heads_per_layer", layers=layers, default=default, least=1)
    gating = config.raw("gating")[1]
    gate = "none" if gating is False else "head" if gating in (None, True, "per-head") else "element"
    seen = windows(config, layers, ["full"] * layers)
    mixers = [
        gqa(config, qk_norm="head", gate=gate, query_heads=count, window=each)
        for count, each in zip(heads, seen, strict=True)
    ]
    ffns = mixed(config, moe(config, router_bias=True), first_dense(config, layers, 1), layers)
    return Architecture(stack(mixers, ffns))


FAMILIES = (
    Family(("mimo_v2_flash", "mimo_v2"), _mimo, ("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM")),
    Family(("cohere2_moe",), _cohere, ("Cohere2MoeForCausalLM",)),
    Family(("exaone_moe",), _exaone, ("ExaoneMoeForCausalLM", "ExaoneMoEForCausalLM")),
    Family(("laguna",), _laguna, ("LagunaForCausalLM",)),
    Family(("afmoe",), _afmoe, ("AfmoeForCausalLM",)),
)
