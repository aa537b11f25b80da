"""Gemma 4: a dense block beside the experts; full layers have wider and fewer heads, and values that are their keys."""

from __future__ import annotations

from specs.huggingface.architecture import Architecture, Family, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import every, gqa, layer_kinds, window
from specs.huggingface.parts.experts import moe


def _gemma4(config: Config) -> Architecture:
    layers = config.layers()
    for name in ("hidden_size_per_layer_input", "num_kv_shared_layers"):
        if config.optional(name, least=0):
            raise config.error(name, "is not 0: layers that share keys or add inputs can't be planned", "use YAML")
    kinds = layer_kinds(config, layers) or every(6, layers)
    sliding = gqa(config, qk_norm="head", window=window(config) or 512)
    same = config.flag("attention_k_eq_v")
    full = gqa(
        config,
        qk_norm="head",
        head_dim=config.integer("global_head_dim", default=512),
        kv_heads=(config.optional("num_global_key_value_heads") if same else None) or sliding.kv_heads,
        key_is_value=same,
    )
    experts = moe(config, shared_experts=1, shared_width=config.integer("intermediate_size"))
    mixers = [sliding if kind == "sliding" else full for kind in kinds]
    return Architecture(stack(mixers, [experts] * layers, ffn_path="moe|", shared_path="mlp"), tied=True)


FAMILIES = (
    Family(
        ("gemma4", "gemma4_text", "gemma4_unified"), _gemma4, ("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration")
    ),
)
