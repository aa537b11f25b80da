"""Qwen2-MoE, Qwen3-MoE (VL and Omni, too), Qwen3-Next and Qwen3.5 (with Gated DeltaNet)."""

from __future__ import annotations

from specs.blocks.recurrent import GatedDelta
from specs.huggingface.architecture import Architecture, Family, Mixer, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import every, gqa, layer_kinds, windows
from specs.huggingface.parts.experts import mixed, moe, step_dense


def _qwen2(config: Config) -> Architecture:
    layers = config.layers()
    seen = windows(config, layers, None if config.flag("use_sliding_window") else ["full"] * layers)
    mixers = [gqa(config, bias=True, output_bias=False, window=window) for window in seen]
    return Architecture(stack(mixers, mixed(config, moe(config, shared_gate=True), step_dense(config, layers), layers)))


def _qwen3(config: Config) -> Architecture:
    layers = config.layers()
    seen = windows(config, layers, None if config.flag("use_sliding_window") else ["full"] * layers)
    mixers = [gqa(config, qk_norm="head", window=window) for window in seen]
    return Architecture(stack(mixers, mixed(config, moe(config), step_dense(config, layers), layers)))


def _qwen3_next(config: Config) -> Architecture:
    layers = config.layers()
    kinds = layer_kinds(config, layers)
    if kinds is None:
        kinds = every(config.integer("full_attention_interval", default=4), layers, other="linear")
    gate = "element" if config.flag("attn_output_gate", default=True) else "none"
    mixers: list[Mixer] = []
    for kind in kinds:
        if kind == "linear":
            mixers.append(gated_delta(config))
        else:
            mixers.append(gqa(config, qk_norm="head", gate=gate))
    ffns = mixed(config, moe(config, shared_gate=True), step_dense(config, layers), layers)
    return Architecture(stack(mixers, ffns, mixer_path="linear_attn|self_attn"), next_token=next_token_modules(config))


def gated_delta(config: Config) -> GatedDelta:
    """Gated DeltaNet by the `linear_*` fields."""
    return config.build(
        GatedDelta,
        "linear_num_value_heads",
        kind="gated_delta",
        key_heads=config.integer("linear_num_key_heads"),
        value_heads=config.integer("linear_num_value_heads"),
        key_dim=config.integer("linear_key_head_dim"),
        value_dim=config.integer("linear_value_head_dim"),
        conv=config.integer("linear_conv_kernel_dim", default=4),
    )


FAMILIES = (
    Family(("qwen2_moe",), _qwen2, ("Qwen2MoeForCausalLM",)),
    Family(
        (
            "qwen3_moe",
            "qwen3_vl_moe",
            "qwen3_vl_moe_text",
            "qwen3_omni_moe",
            "qwen3_omni_moe_text",
            "qwen3_omni_moe_thinker",
            "interns1",
            "sdar_moe",
        ),
        _qwen3,
        ("Qwen3MoeForCausalLM",),
    ),
    Family(
        ("qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text"),
        _qwen3_next,
        ("Qwen3NextForCausalLM", "Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
    ),
)
