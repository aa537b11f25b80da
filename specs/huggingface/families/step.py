"""Step-3 (queries from a shared vector) and Step-3.5/3.7 (windows with more heads, a gate for each head)."""

from __future__ import annotations

from typing import Any

from specs.huggingface.architecture import Architecture, Family, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import HEADS, KV_HEADS, gqa, layer_kinds, window
from specs.huggingface.parts.experts import EXPERTS, first_dense, mixed, moe


def _dense(config: Config, layers: int, first: int) -> set[int]:
    """All but `moe_layers_enum`, a list written as text."""
    value = config.raw("moe_layers_enum")[1]
    if value is None:
        return first_dense(config, layers, first)
    if isinstance(value, str):
        words = [word for word in value.replace(" ", "").split(",") if word]
        if not all(word.isdecimal() and len(word) < 6 for word in words):
            raise config.error("moe_layers_enum", "is not a list of layers", "write one, such as '4,5,6'")
        named = {int(word) for word in words}
    else:
        named = set(config.integers("moe_layers_enum"))
    return set(range(layers)) - named


def _step3(config: Config) -> Architecture:
    layers = config.layers()
    mixer = gqa(config, kv_heads=config.integer(*KV_HEADS, default=1), q_rank=config.optional("share_q_dim"))
    experts = moe(config, shared_experts=1, shared_width=config.integer("share_expert_dim"))
    ffns = mixed(config, experts, _dense(config, layers, 0), layers)
    return Architecture(stack([mixer] * layers, ffns, ffn_path="moe|mlp", shared_path="share_expert"))


def _step3p5(config: Config) -> Architecture:
    layers = config.layers()
    other = config.section("attention_other_setting")
    changes: dict[str, Any] = {}
    if other is not None:
        changes["query_heads"] = other.integer(*HEADS)
        changes["kv_heads"] = other.integer("num_attention_groups", "num_key_value_heads")
        changes["head_dim"] = other.integer("head_dim")
    elif config.has("num_sliding_attention_heads"):
        changes["query_heads"] = config.integer("num_sliding_attention_heads")
    gate = "head" if config.flag("use_head_wise_attn_gate", default=True) else "none"
    kinds = layer_kinds(config, layers) or ["full"] * layers
    full = gqa(config, output_bias=False, qk_norm="head", gate=gate)
    sliding = gqa(config, output_bias=False, qk_norm="head", gate=gate, window=window(config), **changes)
    mixers = [sliding if kind == "sliding" else full for kind in kinds]
    experts = moe(
        config,
        experts=config.integer("moe_num_experts", *EXPERTS),
        shared_experts=1,
        shared_width=config.integer("share_expert_dim", "share_expert_dims"),
        router_bias=config.flag("use_moe_router_bias", default=True),
    )
    ffns = mixed(config, experts, _dense(config, layers, 3), layers)
    layout = stack(mixers, ffns, ffn_path="moe|mlp", shared_path="share_expert")
    return Architecture(layout, next_token=next_token_modules(config))


FAMILIES = (
    Family(("step3_text", "step3_vl", "step3"), _step3, ("Step3TextForCausalLM", "Step3VLForConditionalGeneration")),
    Family(
        ("step3p5", "step3p7", "step3p7_text"),
        _step3p5,
        ("Step3p5ForCausalLM", "Step3p7FlashForCausalLM", "Step3p7ForConditionalGeneration"),
    ),
)
